"""One weight of the target made from the source: taken over, rounded, or left in floats."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from circius.kernels.packed import PackedMatrix
from circius.quant.policy import Decided
from circius.quant.rounding import round_matrix
from circius.weights.cast import cast
from circius.weights.opened import Checkpoint
from circius.weights.stored import Packed

Made = Tensor | PackedMatrix


class WeightError(NamedTuple):
    """How far a packed weight is from the source's: the root of the squared error over the squared weight."""

    name: str
    bits: int
    relative: float


OnPacked = Callable[[WeightError], None]


def make_weight(checkpoint: Checkpoint, decided: Decided, on_packed: OnPacked) -> Made:
    """The weight as the plan wants it, rounded to nearest if it is to be rounded.

    Raises:
        CheckpointError: a plain weight has a value that its dtype cannot hold.
    """
    weight = decided.weight
    if decided.origin == "plain":
        return cast(weight.name, checkpoint.read(weight.name), weight.dtype)
    packed = checkpoint.read_packed(weight.name) if decided.origin == "taken over" else None
    if packed is None:  # to be rounded, or a block format with a value that no packed matrix has
        packed = round_matrix(checkpoint.read(weight.name), decided.grid)
    return tell(decided, packed, on_packed)


def tell(decided: Decided, packed: Packed, on_packed: OnPacked) -> PackedMatrix:
    """The matrix, once its error is reported."""
    weight, norm = decided.weight, packed.squared_norm
    assert weight.bits is not None
    on_packed(WeightError(weight.name, weight.bits, math.sqrt(packed.squared_error / norm) if norm else 0.0))
    return packed.matrix


def values_of(made: Made) -> Tensor:
    """The values of a weight in float32."""
    return made.float() if isinstance(made, torch.Tensor) else made.unpack()
