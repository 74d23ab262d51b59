"""consolidated.00.pth, streaming: torch lays the file out without any values, then they are filled in one by one."""

import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from circius.weights.plan import PlannedTensor
from circius.weights.write_safetensors import write_values

_LOCAL_HEADER_BYTES = 30
_CENTRAL_HEADER = struct.Struct("<4s6H3I5H2I")
_CRC_IN_CENTRAL_HEADER = 16
_DESCRIPTOR_SIGNATURE = b"PK\x07\x08"


def write_pth(path: Path, plan: Sequence[PlannedTensor], tensors: Iterator[Tensor]) -> None:
    """Writes the tensors as `torch.save` of a dict would, one at a time; takes exactly `len(plan)` of them.

    The file is a zip archive with one stored, uncompressed entry a tensor. The checksums that torch could not know
    without the values are filled in too, so that the archive is valid for every zip reader.
    """
    _lay_out(path, plan)
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        central_start = archive.start_dir
    storages = [_named(entries, f"/data/{index}") for index in range(len(plan))]
    checksums: dict[str, int] = {}
    with path.open("r+b") as file:
        for planned, entry in zip(plan, storages, strict=True):
            start = _data_start(file, entry)
            file.seek(start)
            checksums[entry.filename] = zlib.crc32(write_values(file, next(tensors), planned))
            _set_descriptor_checksum(file, start + planned.n_bytes, checksums[entry.filename])
        _set_central_checksums(file, central_start, [checksums.get(entry.filename) for entry in entries])


def _lay_out(path: Path, plan: Sequence[PlannedTensor]) -> None:
    with FakeTensorMode():
        skeleton = {planned.name: torch.empty(planned.shape, dtype=planned.dtype) for planned in plan}
    try:
        with torch.serialization.skip_data(materialize_fake_tensors=True):
            torch.save(skeleton, path)
    except RuntimeError as error:  # torch's writer reports a failed write so
        raise OSError(f"torch could not lay out {path.name}: {str(error).splitlines()[0]}") from error


def _named(entries: Sequence[zipfile.ZipInfo], suffix: str) -> zipfile.ZipInfo:
    return next(entry for entry in entries if entry.filename.endswith(suffix))


def _data_start(file: BinaryIO, entry: zipfile.ZipInfo) -> int:
    file.seek(entry.header_offset + _LOCAL_HEADER_BYTES - 4)
    n_name, n_extra = struct.unpack("<2H", file.read(4))
    return entry.header_offset + _LOCAL_HEADER_BYTES + int(n_name) + int(n_extra)


def _set_descriptor_checksum(file: BinaryIO, position: int, checksum: int) -> None:
    file.seek(position)
    signature = file.read(len(_DESCRIPTOR_SIGNATURE))
    assert signature == _DESCRIPTOR_SIGNATURE, "torch's archives carry a data descriptor after each entry"
    file.seek(position + len(_DESCRIPTOR_SIGNATURE))
    file.write(struct.pack("<I", checksum))


def _set_central_checksums(file: BinaryIO, position: int, checksums: Sequence[int | None]) -> None:
    for checksum in checksums:
        file.seek(position)
        fields = _CENTRAL_HEADER.unpack(file.read(_CENTRAL_HEADER.size))
        assert fields[0] == b"PK\x01\x02", "a central directory header was expected here"
        if checksum is not None:
            file.seek(position + _CRC_IN_CENTRAL_HEADER)
            file.write(struct.pack("<I", checksum))
        position += _CENTRAL_HEADER.size + sum(fields[10:13])  # name, extra field, comment
