"""A weight matrix in 4 or 8 bits, in the order in which the kernels read it: on disk, in a mapped file and in use.

Sixteen outputs make a tile. Inside a tile the inputs go by fours (8 bits) or eights (4 bits), and each such step is 64
bytes that hold all sixteen outputs: one AVX-512 register, two of AVX2, four of NEON, each with whole outputs of four
neighbouring inputs, which is what the dot-product instructions add up. So nothing is repacked for any processor.

Values: `scale * (code - 8)` for symmetric 4 bits, `scale * code + min` where there are minima, and for 8 bits
`scale * code`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from circius.base.errors import InvalidInputError

TILE = 16
"""Outputs of one tile."""
UNIT = 32
"""Inputs whose products are added as whole numbers; a group of weights is one or more of them."""
ZERO_CODE = 8
"""The code of zero in symmetric 4 bits."""
SCALE_DTYPES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, kw_only=True)
class PackedMatrix:
    """A matrix (n_outputs, n_inputs) of 4- or 8-bit codes with a scale, and maybe a minimum, for each group of inputs.

    codes: for 4 bits (tiles, n_inputs / 8, 64) uint8: byte 4 * o + i of step s holds, for output o of the tile, input
        8 * s + i in its low half and input 8 * s + 4 + i in its high half. For 8 bits (tiles, n_inputs / 4, 64) int8:
        byte 4 * o + i of step s is input 4 * s + i of output o.
    scales: (tiles, n_inputs / group, 16) float16 or bfloat16.
    mins: like the scales; only with 4 bits. None means symmetric: code 8 is zero.

    Outputs past `n_outputs` in the last tile have scale and minimum 0.

    Raises:
        InvalidInputError: tensors that do not fit together.
    """

    n_outputs: int
    codes: Tensor
    scales: Tensor
    mins: Tensor | None = None

    def __post_init__(self) -> None:
        tiles = -(-self.n_outputs // TILE)
        if self.codes.dtype not in (torch.uint8, torch.int8) or self.codes.ndim != 3 or self.codes.shape[2] != 64:
            raise InvalidInputError(
                f"packed codes must be (tiles, steps, 64) of uint8 for 4 bits or int8 for 8, got "
                f"{tuple(self.codes.shape)} of {self.codes.dtype}"
            )
        n_groups = self.scales.shape[1] if self.scales.ndim == 3 else 0
        if (
            self.codes.shape[0] != tiles
            or tuple(self.scales.shape) != (tiles, n_groups, TILE)
            or self.scales.dtype not in SCALE_DTYPES
            or not n_groups
            or self.n_inputs % n_groups
            or self.group % UNIT
        ):
            raise InvalidInputError(
                f"packed scales must be ({tiles}, n_inputs / group, {TILE}) in float16 or bfloat16, with a group of a "
                f"multiple of {UNIT}; got {tuple(self.scales.shape)} of {self.scales.dtype} for codes "
                f"{tuple(self.codes.shape)} and {self.n_outputs} outputs"
            )
        if self.mins is not None and (
            self.bits != 4 or self.mins.shape != self.scales.shape or self.mins.dtype != self.scales.dtype
        ):
            raise InvalidInputError(
                f"minima must be like the scales, and only with 4 bits: got {tuple(self.mins.shape)} of "
                f"{self.mins.dtype} with {self.bits} bits and scales {tuple(self.scales.shape)} of {self.scales.dtype}"
            )

    @property
    def bits(self) -> int:
        """4 or 8."""
        return 4 if self.codes.dtype == torch.uint8 else 8

    @property
    def n_inputs(self) -> int:
        return self.codes.shape[1] * 32 // self.bits

    @property
    def group(self) -> int:
        """The inputs that share a scale; `n_inputs` for one scale an output."""
        return self.n_inputs // self.scales.shape[1]

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """The tensors that it consists of."""
        return tuple(part for part in (self.codes, self.scales, self.mins) if part is not None)

    @property
    def n_bytes(self) -> int:
        return sum(part.nbytes for part in self.parts)

    def rows(self, outputs: Tensor) -> Tensor:
        """The values of some outputs, as float32 (len(outputs), n_inputs); what an embedding looks up."""
        tiles, places = outputs // TILE, outputs % TILE
        picked = self.codes.view(len(self.codes), -1, TILE, 4)[tiles, :, places]
        scales = self.scales[tiles, :, places]
        mins = None if self.mins is None else self.mins[tiles, :, places]
        return _values(_by_input(picked), scales, mins, self.bits)

    def unpack(self, tiles: slice = slice(None)) -> Tensor:
        """The values of some tiles as float32 (outputs, n_inputs); of all by default."""
        begin, end, _ = tiles.indices(len(self.codes))
        codes = self.codes[begin:end]
        picked = codes.view(len(codes), -1, TILE, 4).transpose(1, 2).flatten(0, 1)
        scales = self.scales[begin:end].transpose(1, 2).flatten(0, 1)
        mins = None if self.mins is None else self.mins[begin:end].transpose(1, 2).flatten(0, 1)
        values = _values(_by_input(picked), scales, mins, self.bits)
        return values[: self.n_outputs - begin * TILE]


def pack(codes: Tensor, scales: Tensor, mins: Tensor | None = None) -> PackedMatrix:
    """Packs codes (outputs, inputs): uint8 from 0 to 15 for 4 bits, int8 from -127 to 127 for 8 bits.

    scales, mins: (outputs, inputs / group) in float16 or bfloat16.

    >>> codes = torch.arange(64, dtype=torch.uint8).view(2, 32) % 16
    >>> packed = pack(codes, torch.ones(2, 1, dtype=torch.float16))
    >>> packed.unpack().equal(codes.float() - 8)
    True
    """
    if codes.ndim != 2 or codes.shape[1] % UNIT or codes.dtype not in (torch.uint8, torch.int8):
        raise InvalidInputError(
            f"codes to pack must be (outputs, a multiple of {UNIT} inputs) of uint8 or int8, got {tuple(codes.shape)} "
            f"of {codes.dtype}"
        )
    n_outputs, n_inputs = codes.shape
    missing = -n_outputs % TILE
    codes, scales = _padded(codes, missing), _padded(scales, missing)
    mins = None if mins is None else _padded(mins, missing)
    by_four = codes.view(-1, TILE, n_inputs // 4, 4).transpose(1, 2)  # (tiles, fours, outputs, 4)
    if codes.dtype == torch.uint8:
        halves = by_four.reshape(len(by_four), -1, 2, TILE, 4)
        by_four = halves[:, :, 0] | (halves[:, :, 1] << 4)
    return PackedMatrix(
        n_outputs=n_outputs,
        codes=by_four.reshape(len(by_four), -1, 4 * TILE).contiguous(),
        scales=_tiled(scales),
        mins=None if mins is None else _tiled(mins),
    )


def _padded(x: Tensor, missing: int) -> Tensor:
    return torch.cat((x, x.new_zeros(missing, x.shape[1]))) if missing else x


def _tiled(x: Tensor) -> Tensor:
    return x.view(-1, TILE, x.shape[1]).transpose(1, 2).contiguous()


def _by_input(picked: Tensor) -> Tensor:
    """Codes (outputs, steps, 4 bytes) as (outputs, inputs)."""
    if picked.dtype == torch.uint8:
        picked = torch.stack((picked & 15, picked >> 4), dim=2)
    return picked.flatten(1)


def _values(codes: Tensor, scales: Tensor, mins: Tensor | None, bits: int) -> Tensor:
    grouped = codes.view(len(codes), scales.shape[1], -1).float()
    if bits == 4 and mins is None:
        grouped = grouped - ZERO_CODE
    values = grouped * scales.float()[:, :, None]
    if mins is not None:
        values = values + mins.float()[:, :, None]
    return values.flatten(1)
