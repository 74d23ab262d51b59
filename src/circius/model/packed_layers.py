"""Layers whose weight is a packed matrix: what takes the place of a `Linear` or an embedding in a quantised model."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from circius.base.errors import InvalidInputError
from circius.kernels.packed import PackedMatrix
from circius.kernels.packed_linear import Activations, packed_linears

_WHOLE = {1: torch.uint8, 2: torch.int16}


class PackedWeight(nn.Module):
    """A packed matrix among a model's buffers, under the names that packed checkpoints use: codes, scales, mins.

    It may be moved to another device, but it has no other number format to go to.
    """

    dtype = torch.float32
    """Of the products, and of the rows that are looked up."""

    def __init__(self, matrix: PackedMatrix) -> None:
        super().__init__()
        self.matrix = matrix
        self.activations: Activations = "int8"
        self.fixed_order = False
        """Whether no bit of a row's product may depend on the other rows; with "int8" that is so anyway."""
        self.register_buffer("codes", matrix.codes)
        self.register_buffer("scales", matrix.scales)
        self.register_buffer("mins", matrix.mins)

    @property
    def device(self) -> torch.device:
        return self.matrix.codes.device

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """What torch calls for `to`, `float` and their like. Casts to float32 change nothing; others are refused."""
        if fn(torch.empty(0, device=self.device)).dtype != self.dtype:
            raise InvalidInputError(
                "packed weights cannot be cast to another number format: load the model with the dtype wanted instead, "
                "which unpacks them"
            )
        for name, part in self._buffers.items():
            if part is not None:  # as whole numbers, which no cast touches, so that they are moved and nothing else
                self._buffers[name] = fn(part.view(_WHOLE[part.itemsize])).view(part.dtype)
        self._rebuild()
        return self

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._rebuild()

    def _rebuild(self) -> None:
        """Makes the matrix of the buffers, which torch has just replaced."""
        codes, scales, mins = (self._buffers[name] for name in ("codes", "scales", "mins"))
        assert codes is not None
        assert scales is not None
        self.matrix = PackedMatrix(n_outputs=self.matrix.n_outputs, codes=codes, scales=scales, mins=mins)


class PackedLinear(nn.Module):
    """A product with a packed matrix; inputs and outputs are float32."""

    def __init__(self, matrix: PackedMatrix) -> None:
        super().__init__()
        self.weight = PackedWeight(matrix)

    def forward(self, x: Tensor) -> Tensor:
        return multiply_packed(x, self.weight)[0]


class PackedEmbedding(nn.Module):
    """Rows of a packed matrix, unpacked as they are looked up."""

    def __init__(self, matrix: PackedMatrix) -> None:
        super().__init__()
        self.weight = PackedWeight(matrix)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.weight.matrix.rows(tokens)


def multiply_packed(x: Tensor, *weights: PackedWeight) -> tuple[Tensor, ...]:
    """The products of `x` with some packed weights, for which it is rounded only once."""
    first = weights[0]
    return packed_linears(x, [weight.matrix for weight in weights], first.activations, fixed_order=first.fixed_order)


def project(x: Tensor, *layers: nn.Module) -> list[Tensor]:
    """What each layer makes of the same input. Those that are packed work together, in one call."""
    packed = [layer.weight for layer in layers if isinstance(layer, PackedLinear)]
    products = iter(multiply_packed(x, *packed) if packed else ())
    return [next(products) if isinstance(layer, PackedLinear) else layer(x) for layer in layers]
