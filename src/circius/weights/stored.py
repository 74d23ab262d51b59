"""Tensors as they lie on disk: where their bytes are, and two ways to have them, in place or as a copy.

A view maps the file's own pages: nothing is read until it is used, and nothing is held twice. A copy goes through
a mapping of its own, which is given back with its pages as soon as the copy is made; so a tensor that has to be
cast, permuted or moved never counts twice. Mappings are private: writing to a view never reaches the file.
"""

import math
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from circius.base.errors import CheckpointError
from circius.kernels.packed import PackedMatrix

FLOAT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
"""What a weight may be stored as, quantised ones aside."""


class Packed(NamedTuple):
    """A weight as a packed matrix, and what of its values was rounded on the way: zeros if nothing was.

    squared_error, squared_norm: of the difference and of the values themselves, over the same of the values.
    """

    matrix: PackedMatrix
    squared_error: float = 0.0
    squared_norm: float = 0.0


class StoredTensor(Protocol):
    """One tensor of a checkpoint file; `name` is the file's own name for it, `dtype` what reading gives."""

    @property
    def file(self) -> Path: ...
    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def n_bytes(self) -> int: ...
    @property
    def is_quantised(self) -> bool: ...
    @property
    def stored_as(self) -> str:
        """How people call the number format in the file."""

    def view(self) -> Tensor:
        """The tensor in place where the file allows it: mapped, not read."""

    def copy(self, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> Tensor:
        """The tensor in memory of its own."""

    def packed(self, n_heads: int | None = None) -> Packed | None:
        """The tensor as a packed matrix, in place where the file has it so; None if it is stored in floats.

        None too where a packed matrix cannot hold the values. n_heads: of the heads whose rows go from interleaved to
        rotate-half order; None leaves the rows as they are.
        """


@dataclass(frozen=True, kw_only=True)
class RawTensor:
    """A tensor whose values lie in a row in the file, `offset` bytes from its start (safetensors, GGUF)."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    offset: int
    is_quantised: bool = False

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def stored_as(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def view(self) -> Tensor:
        bytes_ = map_bytes(self.file, self.offset, self.n_bytes)
        if self.offset % self.dtype.itemsize:  # kernels may assume that values lie on their own multiples
            bytes_ = bytes_.clone()
        return bytes_.view(self.dtype).view(self.shape)

    def copy(self, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> Tensor:
        return self.view().to(device=device, dtype=dtype or self.dtype, copy=True)

    def packed(self, n_heads: int | None = None) -> None:
        """Floats are not packed."""


def map_bytes(file: Path, offset: int, n_bytes: int) -> Tensor:
    """The bytes of `file` from `offset` on, as uint8, mapped; the mapping lives as long as the tensor does.

    Raises:
        CheckpointError: the file cannot be opened or is shorter than that.
    """
    start = offset - offset % mmap.ALLOCATIONGRANULARITY
    try:
        with file.open("rb") as stream:
            mapping = mmap.mmap(stream.fileno(), offset - start + n_bytes, offset=start, access=mmap.ACCESS_COPY)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: bytes {offset} to {offset + n_bytes} cannot be mapped: {error}") from error
    return torch.frombuffer(mapping, dtype=torch.uint8, offset=offset - start, count=n_bytes)


def file_size(file: Path) -> int:
    """The size of `file` in bytes.

    Raises:
        CheckpointError: there is no such file, or it may not be read.
    """
    try:
        return file.stat().st_size
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror}") from error


def check_float(tensor: StoredTensor) -> None:
    """Raises CheckpointError unless `tensor` holds numbers that a weight can be."""
    if not tensor.is_quantised and tensor.dtype not in FLOAT_DTYPES:
        allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in FLOAT_DTYPES)
        found = str(tensor.dtype).removeprefix("torch.")
        raise CheckpointError(f"{tensor.file}: {tensor.name} is stored as {found}; a weight can be {allowed}")
