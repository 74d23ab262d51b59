"""In which order examples come: a function of a seed and of how often one has been around, in any version of numpy."""

import numpy as np
from numpy.typing import NDArray

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def permutation(n: int, *key: int) -> NDArray[np.int64]:
    """The numbers below `n` in an order that the key decides, and nothing else.

    Every number gets 64 mixed bits (SplitMix64), and these are sorted. numpy's own permutations may change from one
    version to the next, and a run must be able to go on after an update.

    >>> permutation(5, 0, 1).tolist() == permutation(5, 0, 1).tolist() != permutation(5, 0, 2).tolist()
    True
    """
    start = 0
    for part in key:
        start = int(_mixed(np.array([(start + part * _GOLDEN + 1) & _MASK], np.uint64))[0])
    numbers = np.arange(n, dtype=np.uint64)
    return np.argsort(_mixed(numbers * np.uint64(_GOLDEN) + np.uint64(start)), kind="stable")


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser: every bit of the input moves about half of the output's."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
