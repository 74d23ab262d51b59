"""Safetensors, streaming: the header first, then one tensor at a time; whole models sharded the Hugging Face way."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

import torch
from torch import Tensor

from circius.weights.plan import PlannedTensor

SHARD_BYTES = 5 * 10**9
_DTYPE_NAMES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int64: "I64",
}
_ALIGNMENT = 64  # of the first value; the format wants 8, and packed codes are read in place by registers of 64 bytes


class _Sized(Protocol):
    @property
    def n_bytes(self) -> int: ...


_Planned = TypeVar("_Planned", bound=_Sized)


def shard(plan: Sequence[PlannedTensor], shard_bytes: int = SHARD_BYTES) -> list[list[PlannedTensor]]:
    """The tensors of each file, as `split` cuts them.

    Inside a file the wider dtypes come first, so that every tensor starts at a multiple of its own value size.
    """
    return [sorted(one, key=lambda planned: -planned.dtype.itemsize) for one in split(plan, shard_bytes)]


def split(plan: Sequence[_Planned], shard_bytes: int = SHARD_BYTES) -> list[list[_Planned]]:
    """What each file holds: in order, at most `shard_bytes` together, unless one alone is larger."""
    shards: list[list[_Planned]] = [[]]
    room = shard_bytes
    for planned in plan:
        if shards[-1] and planned.n_bytes > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append(planned)
        room -= planned.n_bytes
    return shards


def write_sharded(folder: Path, shards: Sequence[Sequence[PlannedTensor]], tensors: Iterator[Tensor]) -> None:
    """Writes model.safetensors, or model-00001-of-0000N.safetensors and their index.

    tensors: the planned tensors in the order of the shards; each is dropped before the next is asked for.
    """
    files = file_names(len(shards))
    for file, plan in zip(files, shards, strict=True):
        write_safetensors(folder / file, plan, tensors)
    write_index(folder, files, shards)


def file_names(n_shards: int, stem: str = "model") -> list[str]:
    """The names of the files that a model is cut into.

    >>> file_names(1), file_names(2)[0]
    (['model.safetensors'], 'model-00001-of-00002.safetensors')
    """
    if n_shards == 1:
        return [f"{stem}.safetensors"]
    return [f"{stem}-{number:05d}-of-{n_shards:05d}.safetensors" for number in range(1, n_shards + 1)]


def write_index(
    folder: Path, files: Sequence[str], shards: Sequence[Sequence[PlannedTensor]], stem: str = "model"
) -> None:
    """Writes model.safetensors.index.json, which says what is in which file; nothing for a single file."""
    if len(files) == 1:
        return
    total_size = sum(planned.n_bytes for plan in shards for planned in plan)
    weight_map = {planned.name: file for file, plan in zip(files, shards, strict=True) for planned in plan}
    index = {"metadata": {"total_size": total_size}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def write_safetensors(path: Path, plan: Sequence[PlannedTensor], tensors: Iterator[Tensor]) -> None:
    """Writes one file; takes exactly `len(plan)` tensors, in order."""
    with path.open("wb") as file:
        file.write(header_of(plan))
        for planned in plan:
            write_values(file, next(tensors), planned)


def write_values(file: BinaryIO, tensor: Tensor, planned: PlannedTensor) -> memoryview:
    """Writes the tensor's values, row after row, and returns the bytes written."""
    assert (tuple(tensor.shape), tensor.dtype) == (planned.shape, planned.dtype), planned.name
    values = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
    file.write(values)
    return values


def header_of(plan: Sequence[PlannedTensor]) -> bytes:
    """All that stands before the first value; a multiple of 64 bytes."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for planned in plan:
        entries[planned.name] = {
            "dtype": _DTYPE_NAMES[planned.dtype],
            "shape": list(planned.shape),
            "data_offsets": [offset, offset + planned.n_bytes],
        }
        offset += planned.n_bytes
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-(8 + len(header)) % _ALIGNMENT)
    return len(header).to_bytes(8, "little") + header
