"""The header of a safetensors file, read strictly: every promise that it makes is checked against the file's size.

Layout: eight bytes with the length n of the header (little-endian), n bytes of JSON {name: {dtype, shape,
data_offsets}}, then the values without gaps. Source: the format's description in the safetensors repository.
"""

import json
import math
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from circius.base.errors import CheckpointError
from circius.weights.stored import RawTensor, file_size

_DTYPES = MappingProxyType(
    {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
        "I64": torch.int64,
        "I32": torch.int32,
        "I16": torch.int16,
        "I8": torch.int8,
        "U8": torch.uint8,
        "BOOL": torch.bool,
    }
)
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit


def read_safetensors_index(file: Path) -> dict[str, RawTensor]:
    """Where each tensor of `file` lies, by name; reads the header only.

    Raises:
        CheckpointError: the file is truncated, damaged, or no safetensors file.
    """
    header, start = _read_header(file)
    header.pop("__metadata__", None)
    tensors: dict[str, RawTensor] = {}
    end = start
    for name, (begin, tensor) in sorted(
        ((name, _parse_entry(file, name, entry, start)) for name, entry in header.items()),
        key=lambda item: (item[1][0], item[1][1].n_bytes),
    ):
        if begin != end:
            raise CheckpointError(
                f"{file}: {name} starts at byte {begin}, but byte {end} is where the tensor before it ends: "
                "the header is damaged"
            )
        tensors[name] = tensor
        end = begin + tensor.n_bytes
    size = file_size(file)
    if size != end:
        fault = "truncated" if size < end else "damaged"
        raise CheckpointError(f"{file}: {fault}: the header promises {end} bytes in all, the file has {size}")
    return tensors


def _read_header(file: Path) -> tuple[dict[str, Any], int]:
    """The parsed header and the offset of the first value."""
    size = file_size(file)
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > min(size - 8, _MAX_HEADER_BYTES):
                raise CheckpointError(
                    f"{file}: truncated or no safetensors file: it has {size} bytes and its header would be "
                    f"{length} bytes long"
                )
            header = json.loads(stream.read(length))
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: the safetensors header is damaged: {error}") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{file}: the safetensors header is damaged: a {type(header).__name__}, not an object")
    return header, 8 + length


def _parse_entry(file: Path, name: str, entry: object, start: int) -> tuple[int, RawTensor]:
    """The tensor of one header entry, and its first byte in the file."""
    fields = entry if isinstance(entry, dict) else {}
    dtype, shape = fields.get("dtype"), _sizes(fields.get("shape"))
    offsets = _sizes(fields.get("data_offsets"))
    if shape is None or offsets is None or len(offsets) != 2 or not isinstance(dtype, str):
        raise CheckpointError(f"{file}: the header's entry for {name!r} is damaged: {str(entry)[:200]}")
    if dtype not in _DTYPES:
        raise CheckpointError(f"{file}: {name} has dtype {dtype!r}; circius reads {', '.join(_DTYPES)}")
    expected, found = math.prod(shape) * _DTYPES[dtype].itemsize, offsets[1] - offsets[0]
    if found != expected:
        raise CheckpointError(
            f"{file}: {name} of shape {shape} and dtype {dtype} takes {expected} bytes, but the header gives it {found}"
        )
    begin = start + offsets[0]
    return begin, RawTensor(file=file, name=name, shape=shape, dtype=_DTYPES[dtype], offset=begin)


def _sizes(values: object) -> tuple[int, ...] | None:
    if isinstance(values, list) and all(type(value) is int and value >= 0 for value in values):
        return tuple(values)
    return None
