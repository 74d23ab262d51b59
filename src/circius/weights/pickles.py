"""Tensors in files written by torch.save (.pth, .bin), read without ever running what a pickle may hold.

A pickle is a program; `weights_only=True` runs the few steps that build tensors and refuses every other one. In
today's files, zip archives, the values lie in a row, so they are mapped like those of any other format. Files from
before torch 1.6 are no archives: they can only be read whole into memory.
"""

import pickletools
import re
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from circius.base.errors import CheckpointError
from circius.weights.stored import RawTensor, StoredTensor, file_size

_HARMLESS = ("torch.", "collections.OrderedDict")
_LOCAL_HEADER_BYTES = 30  # of a zip record, before its name and its extra field


@dataclass(frozen=True, kw_only=True)
class PickledTensor:
    """A tensor as torch.load gives it, for what does not lie in a row in the file: transposed, or from an old file."""

    file: Path
    name: str
    values: Tensor = field(repr=False)
    is_quantised: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    @property
    def n_bytes(self) -> int:
        return self.values.numel() * self.values.itemsize

    @property
    def stored_as(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def view(self) -> Tensor:
        return self.values.contiguous()

    def copy(self, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> Tensor:
        return self.values.to(device=device, dtype=dtype or self.dtype, copy=True).contiguous()

    def packed(self, n_heads: int | None = None) -> None:
        """Floats are not packed."""


def read_pickle_index(file: Path) -> dict[str, StoredTensor]:
    """The tensors of `file`, by name; reads the pickle, not the values.

    Raises:
        CheckpointError: the file holds code, is truncated or damaged, or holds something else than named tensors.
    """
    file_size(file)
    try:
        is_archive = zipfile.is_zipfile(file)
        if is_archive:
            _check_archive(file)
        with warnings.catch_warnings():  # about pickle protocols: what cannot be read is refused below anyway
            warnings.simplefilter("ignore")
            state = torch.load(file, map_location="cpu", weights_only=True, mmap=is_archive)
        tensors = _check_state(file, state)
        offsets = _offsets(file, tensors) if is_archive else None
    except CheckpointError:
        raise
    except Exception as error:  # what a damaged pickle can raise has no end
        raise CheckpointError(_explain(file, error)) from error
    return {name: _stored(file, name, tensor, offsets) for name, tensor in tensors.items()}


def _stored(file: Path, name: str, tensor: Tensor, offsets: Mapping[int, int] | None) -> StoredTensor:
    if offsets is None or not tensor.is_contiguous():
        return PickledTensor(file=file, name=name, values=tensor)
    start = offsets[tensor.untyped_storage().data_ptr()] + int(tensor.storage_offset()) * tensor.itemsize
    return RawTensor(file=file, name=name, shape=tuple(tensor.shape), dtype=tensor.dtype, offset=start)


def _offsets(file: Path, tensors: Mapping[str, Tensor]) -> dict[int, int] | None:
    """Where in the file each storage of the mapped `tensors` starts, by its address; None if that cannot be told.

    The file's records and the storages must be the same set of numbers but for one shift, the address of the mapping.
    """
    addresses = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
    starts: list[int] = []
    with zipfile.ZipFile(file) as archive, file.open("rb") as stream:
        for record in archive.infolist():
            if record.filename.endswith("/byteorder") and archive.read(record) != sys.byteorder.encode():
                return None
            if re.search(r"/data/\d+$", record.filename):
                stream.seek(record.header_offset)
                header = stream.read(_LOCAL_HEADER_BYTES)
                lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
                starts.append(record.header_offset + _LOCAL_HEADER_BYTES + lengths)
    pairs = dict(zip(sorted(addresses), sorted(starts), strict=False))
    is_shift = len({address - start for address, start in pairs.items()}) == 1
    return pairs if is_shift and len(addresses) == len(starts) else None


def _check_archive(file: Path) -> None:
    """Raises unless the archive's records are stored as they are: a mapping would hand out compressed bytes."""
    with zipfile.ZipFile(file) as archive:
        for record in archive.infolist():
            if record.compress_type != zipfile.ZIP_STORED or record.compress_size != record.file_size:
                raise CheckpointError(
                    f"{file}: the record {record.filename} is compressed, which torch.save never does: "
                    "the file is damaged or was packed again"
                )


def _check_state(file: Path, state: object) -> dict[str, Tensor]:
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{file}: holds a {type(state).__name__}, not a dictionary of named tensors")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.layout != torch.strided:
            raise CheckpointError(
                f"{file}: the entry {name!r} is a {type(value).__name__}; only plain tensors are expected"
            )
    return {name: value.detach() for name, value in state.items()}


def _explain(file: Path, error: Exception) -> str:
    if called := _called(file):
        return (
            f"{file}: refused: the file holds code, not only tensors: loading it the old way would call {called}. "
            "Nothing of it was run; ask its author for safetensors"
        )
    reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    return f"{file}: truncated, damaged, or not written by torch.save: {reason}"


def _called(file: Path) -> str | None:
    """The first thing outside of torch and the plain containers that the file's pickles name; runs nothing."""
    with suppress(Exception), ExitStack() as stack:  # the walk ends where the pickles do, or where they are damaged
        stream: IO[bytes] = stack.enter_context(file.open("rb"))
        if zipfile.is_zipfile(file):
            archive = stack.enter_context(zipfile.ZipFile(file))
            record = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            stream = stack.enter_context(archive.open(record))
        while True:  # files from before torch 1.6 are several pickles, one behind the other
            for name in _globals_of(stream):
                if not name.startswith(_HARMLESS):
                    return name
    return None


def _globals_of(stream: IO[bytes]) -> Iterator[str]:
    """The functions and classes that the pickle at the start of `stream` would look up, as module.name."""
    strings: list[str] = []
    for operation, argument, _ in pickletools.genops(stream):
        if operation.name == "GLOBAL":
            yield str(argument).replace(" ", ".")
        elif operation.name == "STACK_GLOBAL":
            yield ".".join(strings[-2:])
        elif isinstance(argument, str):
            strings.append(argument)
