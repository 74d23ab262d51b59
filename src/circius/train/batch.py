"""Examples beside each other on one flat token axis: no padding, and no example sees another."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from circius.train.example import Example

IGNORED = -100
"""The target of a token after which nothing is learnt; torch's own number for it."""


@dataclass(frozen=True, eq=False)
class Batch:
    """tokens (N,) int64 and lengths are what a model takes; targets (N,) int64 the ids that follow, or `IGNORED`."""

    tokens: Tensor
    lengths: list[int]
    targets: Tensor

    @classmethod
    def of(cls, examples: Sequence[Example]) -> "Batch":
        """Some examples, in their order.

        >>> import numpy as np
        >>> Batch.of([Example(np.array([1, 5, 6]), np.array([True, False, True]))]).targets.tolist()
        [-100, 6, -100]
        """
        targets = []
        for example in examples:
            ids = torch.from_numpy(example.ids)
            targets += [torch.where(torch.from_numpy(example.learnt), ids, IGNORED)[1:], torch.tensor([IGNORED])]
        tokens = torch.cat([torch.from_numpy(example.ids) for example in examples])
        return cls(tokens, [len(example) for example in examples], torch.cat(targets))

    @property
    def n_learnt(self) -> int:
        """How many tokens the loss of this batch is a sum over."""
        return int((self.targets != IGNORED).sum())
