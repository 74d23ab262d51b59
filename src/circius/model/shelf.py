"""Rings in memory: their number format, what is rounded on the way in, and which position stands in which slot."""

from typing import NamedTuple

import torch
from torch import Tensor

from circius.base.errors import InvalidInputError
from circius.kernels.ring_attention import Rings
from circius.model.window import EMPTY

CACHE_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int8)
_MOST_F16 = 65_504.0
_MOST_CODE = 127.0


class Rounded(NamedTuple):
    """Numbers (..., D) as a cache holds them; `scales` (...) float32 for int8 codes, else None."""

    numbers: Tensor
    scales: Tensor | None

    def read(self, dtype: torch.dtype) -> Tensor:
        """The numbers that they stand for."""
        if self.scales is None:
            return self.numbers.to(dtype)
        return (self.numbers.float() * self.scales[..., None]).to(dtype)


def rounded(x: Tensor, dtype: torch.dtype) -> Rounded:
    """`x` (..., D) in a cache's dtype. Past the largest float16 it becomes that, not infinite; int8 codes take a scale
    for each D numbers, whose largest becomes 127, and NaN for a scale where any of them is not finite."""
    if dtype == torch.int8:
        return _codes(x.float())
    if dtype == torch.float16 and x.dtype != torch.float16:
        x = x.clamp(-_MOST_F16, _MOST_F16)
    return Rounded(x.to(dtype), None)


def _codes(x: Tensor) -> Rounded:
    highest = x.abs().amax(dim=-1)
    factor = torch.full_like(highest, _MOST_CODE) / highest  # a number over a tensor would multiply by 1 / highest
    # Zeros, and what is so small that its factor overflows, have codes of zero.
    codes = torch.where(factor.isfinite()[..., None], (x * factor[..., None]).round(), 0.0)
    codes = torch.where(highest.isfinite()[..., None], codes, 0.0)
    scales = torch.where(highest.isfinite(), highest / _MOST_CODE, torch.nan)
    return Rounded(codes.to(torch.int8), scales)


def slot_positions(lengths: Tensor, n_slots: int) -> Tensor:
    """The position in each slot of rings that have seen `lengths` (B,) tokens: (B, n_slots); EMPTY where none is.

    >>> slot_positions(torch.tensor([6]), 4).tolist()  # the last four of 0 to 5
    [[4, 5, 2, 3]]

    After a truncation some slots hold later tokens than this says, but then what it says is out of every window.
    """
    last = lengths[:, None] - 1
    slots = torch.arange(n_slots, device=lengths.device)
    positions = last - (last - slots) % n_slots
    return torch.where(positions < 0, EMPTY, positions)


class Shelf:
    """B rings of S slots for each of some layers that share one window. Position p stands in slot p mod S."""

    def __init__(
        self, n_layers: int, *, n_rows: int, n_kv_heads: int, n_slots: int, head_dim: int,
        dtype: torch.dtype, device: torch.device,
    ) -> None:  # fmt: skip
        if dtype not in CACHE_DTYPES:
            raise InvalidInputError(f"a cache holds float32, float16, bfloat16 or int8, got {dtype}")
        self.n_slots, self.dtype = n_slots, dtype
        shape = (n_layers, n_rows, n_kv_heads, n_slots)
        scales = [torch.zeros(shape, device=device) if dtype == torch.int8 else None for _ in range(2)]
        # Zeros, not garbage: a masked slot has probability 0, and 0 times a NaN found in fresh memory would be NaN.
        keys, values = (torch.zeros(*shape, head_dim, dtype=dtype, device=device) for _ in range(2))
        self.rings = Rings(keys, values, *scales)

    @property
    def device(self) -> torch.device:
        return self.rings.keys.device

    @property
    def n_bytes(self) -> int:
        return sum(x.numel() * x.element_size() for x in self._tensors())

    def _tensors(self) -> list[Tensor]:
        return [x for x in self.rings if x is not None]

    def touch(self) -> None:
        """Empties all rings, and so takes their memory now."""
        for x in self._tensors():
            x.zero_()

    def fill_with_noise(self) -> None:
        """Puts normal numbers into all slots, the same in every layer: drawing them for each would take seconds."""
        for ring, scales in (
            (self.rings.keys, self.rings.key_scales),
            (self.rings.values, self.rings.value_scales),
        ):
            noise = rounded(torch.randn(ring.shape[1:], device=self.device), self.dtype)
            ring.copy_(noise.numbers.expand_as(ring))
            if scales is not None and noise.scales is not None:
                scales.copy_(noise.scales.expand_as(scales))

    def copy_row(self, row: int, source: "Shelf", source_row: int) -> None:
        """Makes `row` hold what `source_row` holds; with unequal capacities only if that row never wrapped."""
        shared = min(self.n_slots, source.n_slots)
        for ours, theirs in zip(self._tensors(), source._tensors(), strict=True):
            ours[:, row, :, :shared] = theirs[:, source_row, :, :shared]

    def keys(self, layer: int, rows: slice, n_used: int) -> Rounded:
        """The first `n_used` slots of some rows: (B, K, n_used, D), in place."""
        return _used(self.rings.keys, self.rings.key_scales, layer, rows, n_used)

    def values(self, layer: int, rows: slice, n_used: int) -> Rounded:
        """As `keys`."""
        return _used(self.rings.values, self.rings.value_scales, layer, rows, n_used)

    def write(self, layer: int, rows: slice | Tensor, slots: slice | Tensor, key: Rounded, value: Rounded) -> None:
        """Puts new keys and values into slots: (K, n, D) for a slice of one row, (B, K, D) for a slot in each row."""
        one = rows.start if isinstance(rows, slice) else rows
        for ring, scales, new in (
            (self.rings.keys, self.rings.key_scales, key),
            (self.rings.values, self.rings.value_scales, value),
        ):
            ring[layer][one, :, slots] = new.numbers
            if scales is not None and new.scales is not None:
                scales[layer][one, :, slots] = new.scales


def _used(ring: Tensor, scales: Tensor | None, layer: int, rows: slice, n_used: int) -> Rounded:
    held = None if scales is None else scales[layer, rows, :, :n_used]
    return Rounded(ring[layer, rows, :, :n_used], held)
