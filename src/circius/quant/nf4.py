"""NF4 (QLoRA, arXiv 2305.14314): matrices in 4 bits whose 16 values are quantiles of the normal distribution.

For training adapters beside frozen weights, on any processor, from weights that nobody quantised before; a block of 64
inputs shares a scale. Packed checkpoints (kernels/packed.py) can be trained beside as they are, and answer faster.
Everything here is plain torch. The values are those of bitsandbytes, as long as scales are not quantised themselves.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from circius.base.errors import InvalidInputError
from circius.model import Transformer
from circius.model.adapter import PROJECTIONS, module_name
from circius.model.layers import Linear

BLOCK = 64
"""Inputs that share a scale."""
_SCALES_TOGETHER = 256
"""Scales that share a step, where they are quantised too."""
_VALUES = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334),
    *(-0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""Appendix E of the paper."""


@dataclass(frozen=True)
class Scales:
    """The largest magnitude of each block: `mean + step * code`, with a step for every 256 of them.

    codes: (blocks,) int8. steps: (blocks / 256, rounded up) float32. mean: () float32.
    """

    codes: Tensor
    steps: Tensor
    mean: Tensor

    @classmethod
    def of(cls, scales: Tensor) -> "Scales":
        """`scales` (blocks,) rounded: by at most a 254th of how far any of its neighbours is from the mean."""
        mean = scales.mean()
        apart = torch.split(scales - mean, _SCALES_TOGETHER)
        steps = torch.stack([part.abs().amax() for part in apart]) / 127
        codes = [
            torch.where(step > 0, part / step, 0.0).round().to(torch.int8)
            for part, step in zip(apart, steps, strict=True)
        ]
        return cls(torch.cat(codes), steps, mean)

    def values(self) -> Tensor:
        steps = self.steps.repeat_interleave(_SCALES_TOGETHER)[: len(self.codes)]
        return self.mean + steps * self.codes


def to_codes(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix as codes (numbers / 2,) uint8, the first of each two in the high half, and scales (blocks,) float32.

    Raises:
        InvalidInputError: the inputs are no multiple of 64, or a number is not finite.
    """
    if weight.ndim != 2 or weight.shape[1] % BLOCK:
        raise InvalidInputError(
            f"NF4 takes matrices whose inputs are a multiple of {BLOCK}, got shape {tuple(weight.shape)}"
        )
    blocks = weight.detach().float().reshape(-1, BLOCK)
    scales = blocks.abs().amax(dim=1)
    if not bool(torch.isfinite(scales).all()):
        raise InvalidInputError(f"a matrix of shape {tuple(weight.shape)} holds numbers that are not finite")
    table = torch.tensor(_VALUES, device=weight.device)
    between = (table[1:] + table[:-1]) / 2
    shares = torch.where(scales[:, None] > 0, blocks / scales[:, None], 0.0)
    nearest = torch.bucketize(shares, between).to(torch.uint8).view(-1, 2)
    return (nearest[:, 0] << 4) | nearest[:, 1], scales


def from_codes(codes: Tensor, scales: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The numbers (blocks, 64) that codes and scales stand for."""
    table = torch.tensor(_VALUES, device=codes.device)
    both = torch.stack((codes >> 4, codes & 15), dim=1).view(-1, BLOCK)
    return (table[both.int()] * scales[:, None]).to(dtype)


class Nf4Linear(nn.Module):
    """A product with a frozen matrix in NF4, unpacked for each call and not kept; of inputs of any floating dtype.

    is_double: whether the scales are quantised too, which leaves 4.13 bits a weight instead of 4.5.
    """

    def __init__(self, weight: Tensor, *, is_double: bool = True) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        codes, scales = to_codes(weight)
        self.register_buffer("codes", codes)
        rounded = Scales.of(scales) if is_double else None
        self.register_buffer("scales", scales if rounded is None else rounded.codes)
        self.register_buffer("steps", None if rounded is None else rounded.steps)
        self.register_buffer("mean", None if rounded is None else rounded.mean)

    def unpacked(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The matrix (outputs, inputs)."""
        codes, scales, steps, mean = (self._buffers[name] for name in ("codes", "scales", "steps", "mean"))
        assert codes is not None
        assert scales is not None
        if steps is not None and mean is not None:
            scales = Scales(scales, steps, mean).values()
        return from_codes(codes, scales, dtype).view(self.out_features, self.in_features)

    @property
    def n_bytes(self) -> int:
        return sum(part.nbytes for part in self.buffers())

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Moves to devices; a cast of the model leaves scales as they are."""
        device = fn(torch.empty(0, device=next(self.buffers()).device)).device
        for name, part in self._buffers.items():
            self._buffers[name] = None if part is None else part.to(device)
        return self

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _Product.apply(x, self)  # type: ignore[no-untyped-call]
        return out


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Nf4Linear) -> Tensor:
        ctx.layer = layer
        return F.linear(x, layer.unpacked(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad @ ctx.layer.unpacked(grad.dtype), None


def to_nf4(model: Transformer, *, is_double: bool = True) -> None:
    """Puts all matrices of the layers in NF4, one after the other; embedding, head and norms stay as they are.

    Raises:
        InvalidInputError: a matrix is quantised already, has pairs beside it, or does not fit NF4.
    """
    names = [module_name(layer, name) for layer in range(model.config.n_layers) for name in PROJECTIONS]
    for name in names:
        if not isinstance(model.get_submodule(name), Linear):
            raise InvalidInputError(
                f"{name} is a {type(model.get_submodule(name)).__name__}: NF4 is made of plain weights, before pairs "
                "are added; load the model with a dtype"
            )
    for name in names:
        weight = model.get_submodule(name).weight
        assert isinstance(weight, Tensor)
        model.replace(name, Nf4Linear(weight, is_double=is_double))
