"""The sliding window, defined once: masks, ring slots, kernels and tests all derive from `visible`."""

from typing import Any, Final

EMPTY: Final = 2**62
"""The position of a slot that holds nothing: later than every query, so no window ever shows it.

A very negative number would be hidden by a window, but not where there is none (None sees all of the past).
"""


def visible(query: Any, key: Any, window: int | None) -> Any:
    """Whether the token at position `query` sees the one at position `key`: itself and the `window - 1` before it.

    Positions are ints or tensors that broadcast; the result is a bool or a bool tensor. None sees the whole past.
    The paper's text can be read as W + 1 keys; its figures 1 and 3, and the released weights' first code, mean W
    with the token itself included.

    >>> [sum(visible(query, key, 3) for key in range(5)) for query in range(5)]
    [1, 2, 3, 3, 3]
    >>> visible(query=7, key=EMPTY, window=None)
    False
    """
    if window is None:
        return key <= query
    return (key <= query) & (key > query - window)
