"""Packed weights in a checkpoint folder: two or three tensors for each, which together are a `PackedMatrix` in place.

The weight `NAME` is stored as `NAME.codes`, `NAME.scales` and, where it has them, `NAME.mins`, in the order in which
the kernels read them. Bits and groups follow from the shapes of these tensors and from that of the weight.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from circius.base.errors import CheckpointError
from circius.kernels.packed import SCALE_DTYPES, TILE, UNIT, PackedMatrix
from circius.kernels.packed_linear import unpack
from circius.weights.cast import short_name
from circius.weights.stored import Packed, StoredTensor

METHOD, VERSION = "circius", 1
"""The `quant_method` and `version` in the `quantization_config` of config.json."""
STEM = "packed"
"""What the files are called instead of "model": transformers, which would fill what it cannot read with random numbers,
finds no weights then, and says so."""
CODES, SCALES, MINS = ".codes", ".scales", ".mins"
ALIGNMENT = 64
"""Codes begin at a multiple of this in the file, so that a step is one load of a register."""

_CODE_DTYPES = {torch.uint8: 4, torch.int8: 8}
_VALUES_AT_ONCE = 2**22  # unpacked in float32 at one time: bounds the memory that it takes


@dataclass(frozen=True, kw_only=True)
class PackedTensor:
    """A weight in 4 or 8 bits, checked for shape; `view` and `copy` unpack it, `packed` has it in place."""

    name: str
    shape: tuple[int, int]
    codes: StoredTensor
    scales: StoredTensor
    mins: StoredTensor | None
    dtype: torch.dtype = torch.float32
    is_quantised: bool = True

    @property
    def file(self) -> Path:
        return self.codes.file

    @property
    def n_bytes(self) -> int:
        return sum(part.n_bytes for part in (self.codes, self.scales, self.mins) if part is not None)

    @property
    def stored_as(self) -> str:
        return packed_name(_CODE_DTYPES[self.codes.dtype], self.shape[1] // self.scales.shape[1])

    def packed(self, n_heads: int | None = None) -> Packed:
        """The matrix, mapped and not read."""
        assert n_heads is None, "packed checkpoints have their rows in our order"
        return Packed(
            PackedMatrix(
                n_outputs=self.shape[0],
                codes=_aligned(self.codes.view()),
                scales=self.scales.view(),
                mins=None if self.mins is None else self.mins.view(),
            )
        )

    def view(self) -> Tensor:
        """The values in float32, where unpacking is exact; codes are no values that could be used in place."""
        return self.copy()

    def copy(self, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> Tensor:
        return unpacked(self.packed().matrix, dtype or self.dtype).to(device)


def packed_name(bits: int, group: int) -> str:
    """How people call a packed format.

    >>> packed_name(4, 32)
    '4 bits in groups of 32'
    """
    return f"{bits} bits in groups of {group}"


def unpacked(matrix: PackedMatrix, dtype: torch.dtype) -> Tensor:
    """The values of a packed matrix in `dtype`, worked out in float32 some tiles at a time."""
    values = torch.empty(matrix.n_outputs, matrix.n_inputs, dtype=dtype)
    n_tiles = max(1, _VALUES_AT_ONCE // (TILE * matrix.n_inputs))
    for index, part in enumerate(torch.split(values, n_tiles * TILE)):
        part.copy_(unpack(matrix, slice(index * n_tiles, (index + 1) * n_tiles)))
    return values


def gather_packed(
    tensors: Mapping[str, StoredTensor], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, StoredTensor]:
    """`tensors` with the parts of each packed weight made one entry, under the weight's name; the rest as it is.

    shapes: what each weight of the model must have.

    Raises:
        CheckpointError: a part is missing, left over, or does not fit the others or the weight.
    """
    names = {name.removesuffix(CODES) for name in tensors if name.endswith(CODES)}
    gathered: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        whole = next((name.removesuffix(end) for end in (CODES, SCALES, MINS) if name.endswith(end)), None)
        if whole is None:
            if name in names:
                raise CheckpointError(f"{tensor.file}: {name} is there both packed, as {name}{CODES}, and as it is")
            gathered[name] = tensor
        elif whole not in names:
            raise CheckpointError(f"{tensor.file}: {name} has no {whole}{CODES} beside it")
        elif name.endswith(CODES):
            gathered[whole] = _checked(whole, tensors, shapes)
    return gathered


def _checked(name: str, tensors: Mapping[str, StoredTensor], shapes: Mapping[str, tuple[int, ...]]) -> PackedTensor:
    codes, scales, mins = tensors[name + CODES], tensors.get(name + SCALES), tensors.get(name + MINS)
    shape = shapes.get(name)
    if shape is None or len(shape) != 2:
        raise CheckpointError(f"{codes.file}: {codes.name} is packed, but this model has no matrix {name}")
    if scales is None:
        raise CheckpointError(f"{codes.file}: {codes.name} has no {name}{SCALES} beside it")
    n_outputs, n_inputs = shape
    tiles, bits = -(-n_outputs // TILE), _CODE_DTYPES.get(codes.dtype)
    if bits is None:
        raise CheckpointError(
            f"{codes.file}: {codes.name} is stored as {short_name(codes.dtype)}; codes are uint8 for 4 bits or int8 "
            "for 8"
        )
    steps = n_inputs * bits // 32
    if codes.shape != (tiles, steps, 4 * TILE) or n_inputs % UNIT:
        raise CheckpointError(
            f"{codes.file}: {codes.name} has shape {codes.shape}; a matrix of shape {shape} in {bits} bits must have "
            f"{(tiles, steps, 4 * TILE)}, and inputs that are a multiple of {UNIT}"
        )
    _check_scales(scales, tiles, n_inputs)
    if mins is not None and (bits != 4 or mins.shape != scales.shape or mins.dtype != scales.dtype):
        raise CheckpointError(
            f"{mins.file}: {mins.name} of shape {mins.shape} in {short_name(mins.dtype)} does not fit: minima are like "
            f"the scales, {scales.shape} in {short_name(scales.dtype)}, and only beside 4-bit codes"
        )
    return PackedTensor(name=name, shape=(n_outputs, n_inputs), codes=codes, scales=scales, mins=mins)


def _check_scales(scales: StoredTensor, tiles: int, n_inputs: int) -> None:
    n_groups = scales.shape[1] if len(scales.shape) == 3 else 0
    fits = n_groups > 0 and n_inputs % n_groups == 0 and (n_inputs // n_groups) % UNIT == 0
    if scales.shape != (tiles, n_groups, TILE) or not fits or scales.dtype not in SCALE_DTYPES:
        allowed = " or ".join(map(short_name, SCALE_DTYPES))
        raise CheckpointError(
            f"{scales.file}: {scales.name} has shape {scales.shape} in {short_name(scales.dtype)}; for {n_inputs} "
            f"inputs it must be ({tiles}, groups, {TILE}) in {allowed}, with groups of a multiple of {UNIT} inputs"
        )


def part_shapes(shape: Sequence[int], *, bits: int, group: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes of the codes and of the scales of a packed matrix.

    >>> part_shapes((100, 64), bits=4, group=32)
    ((7, 8, 64), (7, 2, 16))
    """
    n_outputs, n_inputs = shape
    tiles = -(-n_outputs // TILE)
    return (tiles, n_inputs * bits // 32, 4 * TILE), (tiles, n_inputs // group, TILE)


def _aligned(codes: Tensor) -> Tensor:
    """The codes as they are, or a copy if other software wrote the file and put them on odd addresses."""
    return codes if codes.data_ptr() % ALIGNMENT == 0 else codes.clone()
