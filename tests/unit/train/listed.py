"""A source whose examples are listed: for tests of what draws from sources."""

from collections.abc import Sequence

import numpy as np

from circius.train.example import Example


class Listed:
    """Examples of the given lengths; the ids tell which example of which source they are of."""

    def __init__(self, name: str, lengths: Sequence[int], *, number: int = 0) -> None:
        self.name = name
        self._lengths = list(lengths)
        self._number = number

    def __len__(self) -> int:
        return len(self._lengths)

    def n_tokens(self, index: int) -> int:
        return self._lengths[index]

    def example(self, index: int) -> Example:
        ids = np.full(self._lengths[index], 1000 * self._number + index)
        return Example(ids, np.arange(len(ids)) > 0)
