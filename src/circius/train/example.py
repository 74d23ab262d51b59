"""What a model learns from at once: some ids, and which of them it is to predict."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circius.base.errors import InvalidInputError


@dataclass(frozen=True, eq=False)
class Example:
    """A piece of text or a conversation as ids (T,), and for each whether it is learnt (T,).

    The first id is never predicted, since nothing stands before it, whatever `learnt` says of it.

    Raises:
        InvalidInputError: arrays that do not fit together, or no ids.
    """

    ids: NDArray[np.int64]
    learnt: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.ids.ndim != 1 or not len(self.ids) or self.ids.shape != self.learnt.shape:
            raise InvalidInputError(
                f"an example has at least one id and says for each whether it is learnt: got shapes {self.ids.shape} "
                f"and {self.learnt.shape}"
            )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_learnt(self) -> int:
        """How many ids are predicted.

        >>> Example(np.array([1, 5, 6]), np.array([True, True, False])).n_learnt
        1
        """
        return int(self.learnt[1:].sum())
