"""From right and wrong to figures: means with their intervals, comparisons, and what others have published."""
