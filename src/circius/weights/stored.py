"""Tensors as they lie on disk: where their bytes are, and two ways to have them, in place or as a copy.

A view maps the file's own pages: nothing is read until it is used, and nothing is held twice. A copy goes through
a mapping of its own, which is given back with its pages as soon as the copy is made; so a tensor that has to be
cast, permuted or moved never counts twice. Mappings are private: writing to a view never reaches the file.
"""

import math
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from circius.base.errors import CheckpointError

FLOAT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
"""What a weight may be stored as, quantised ones aside."""


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

    def view(self) -> Tensor:
        """The tensor in place where the file allows it: mapped, not read."""

    def copy(self, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> Tensor:
        """The tensor in memory of its own."""


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

    def view(self) -> Tensor:
        bytes_ = map_bytes(self.file, self.offset, self.n_bytes)
        if self.offset % self.dtype.itemsize:  # kernels may assume that values lie on their own multiples
            bytes_ = bytes_.clone()
        return bytes_.view(self.dtype).view(self.shape)

    def copy(self, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> Tensor:
        return self.view().to(device=device, dtype=dtype or self.dtype, copy=True)


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
