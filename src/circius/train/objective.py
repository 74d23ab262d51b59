"""What a step learns from a batch: a sum to take gradients of, and what it is a sum over.

The loop knows of nothing else; what kind of run it is, is decided by which objective it is given.
"""

from abc import ABC, abstractmethod
from typing import Generic, NamedTuple, TypeVar

from torch import Tensor, nn

from circius.model import Transformer
from circius.train.batch import Batch
from circius.train.forward import batch_loss

B = TypeVar("B")


class Summed(NamedTuple):
    """total: (), what gradients are taken of. shown: by name, sums to be divided by the same count, no gradients;
    "loss" is among them."""

    total: Tensor
    shown: dict[str, Tensor]


class Objective(nn.Module, ABC, Generic[B]):
    """A model and what it is to learn, as one module, so that weights that are spread over processes are gathered once
    for all of it."""

    unit = "token"
    """What losses are given for each of."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    @abstractmethod
    def forward(self, batch: B) -> Summed:
        """The sums of a batch."""

    @abstractmethod
    def count(self, batch: B) -> int:
        """How many units the sums of a batch are over."""

    @abstractmethod
    def lengths(self, batch: B) -> list[int]:
        """The sequences that are computed for a batch."""


class LikelyText(Objective[Batch]):
    """The negative log-likelihood of the learnt tokens: pre-training and instruction tuning."""

    def __init__(self, model: Transformer, *, z_loss: float = 0.0) -> None:
        super().__init__(model)
        self._z_loss = z_loss

    def forward(self, batch: Batch) -> Summed:
        loss = batch_loss(self.model, batch, z_loss=self._z_loss)
        shown = {"loss": loss.nll}
        if self._z_loss:
            shown["z"] = loss.z.detach()
        return Summed(loss.total, shown)

    def count(self, batch: Batch) -> int:
        return batch.n_learnt

    def lengths(self, batch: Batch) -> list[int]:
        return batch.lengths
