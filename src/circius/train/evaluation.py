"""The loss of texts that are not trained on."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

import torch

from circius.train.loss import perplexity
from circius.train.objective import Objective
from circius.train.world import World

B = TypeVar("B")


@dataclass(frozen=True, kw_only=True)
class HeldOut(Generic[B]):
    """What one evaluation reads. batches: all of them, the same whenever it is called. n_bytes: of the text that the
    learnt tokens of the first so many batches spell; None where nobody knows."""

    name: str
    batches: Callable[[], Iterable[B]]
    n_bytes: Callable[[int], int] | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """Means over `n` units, tokens say, of one held-out source."""

    name: str
    n: int
    means: dict[str, float]
    bits_per_byte: float | None = None

    @property
    def loss(self) -> float:
        return self.means["loss"]

    def record(self, *, per_token: bool) -> dict[str, Any]:
        """For a line of the metrics."""
        fields: dict[str, Any] = {"name": self.name, "n": self.n, **self.means}
        if per_token:
            fields["perplexity"] = perplexity(self.loss, 1)
        if self.bits_per_byte is not None:
            fields["bits_per_byte"] = self.bits_per_byte
        return fields


def evaluate(objective: Objective[B], held_out: HeldOut[B], world: World, *, max_batches: int | None = None) -> Result:
    """The means over a held-out source, its batches shared out between the processes; all of them call this."""
    was_training = objective.training
    objective.eval()
    sums: dict[str, float] = {}
    n, n_batches = 0, 0
    try:
        with torch.no_grad():  # not inference_mode: gathered weights could not be trained with afterwards
            for batch, counts in _shares(held_out, world, max_batches):
                shown = objective(batch).shown
                if counts:
                    n += objective.count(batch)
                    n_batches += 1
                    sums = {name: sums.get(name, 0.0) + float(value) for name, value in shown.items()}
                else:
                    sums = {**dict.fromkeys(shown, 0.0), **sums}
    finally:
        objective.train(was_training)
    names = sorted(sums)
    total, total_batches, *totals = world.summed([n, n_batches, *(sums[name] for name in names)])
    means = {name: value / max(total, 1) for name, value in zip(names, totals, strict=True)}
    bits = None
    if held_out.n_bytes is not None:
        n_bytes = held_out.n_bytes(int(total_batches))
        bits = means["loss"] * total / math.log(2) / n_bytes if n_bytes else None
    return Result(name=held_out.name, n=int(total), means=means, bits_per_byte=bits)


def _shares(held_out: HeldOut[B], world: World, max_batches: int | None) -> Iterator[tuple[B, bool]]:
    """This process's batches, and whether each counts: where they do not come out even, the first one is computed once
    more for nothing, so that all processes do the same number of forwards."""
    batches = islice(held_out.batches(), max_batches)
    first = None
    for group in _groups(batches, world.n_data):
        first = group[0] if first is None else first
        counts = world.data_rank < len(group)
        yield (group[world.data_rank] if counts else first), counts


def _groups(batches: Iterable[B], size: int) -> Iterator[list[B]]:
    rest = iter(batches)
    while group := list(islice(rest, size)):
        yield group
