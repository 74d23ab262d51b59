"""From what a model said to right or wrong: plain functions on texts and numbers, one idea a file."""
