"""Safetensors, streaming: the header first, then one tensor at a time; whole models sharded the Hugging Face way."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from circius.weights.plan import PlannedTensor

SHARD_BYTES = 5 * 10**9
_DTYPE_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
_ALIGNMENT = 8


def shard(plan: Sequence[PlannedTensor], shard_bytes: int = SHARD_BYTES) -> list[list[PlannedTensor]]:
    """The tensors of each file: in order, at most `shard_bytes` together, unless one alone is larger.

    Inside a file the wider dtypes come first, so that every tensor starts at a multiple of its own value size.
    """
    shards: list[list[PlannedTensor]] = [[]]
    room = shard_bytes
    for planned in plan:
        if shards[-1] and planned.n_bytes > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append(planned)
        room -= planned.n_bytes
    return [sorted(one, key=lambda planned: -planned.dtype.itemsize) for one in shards]


def write_sharded(folder: Path, shards: Sequence[Sequence[PlannedTensor]], tensors: Iterator[Tensor]) -> None:
    """Writes model.safetensors, or model-00001-of-0000N.safetensors and their index.

    tensors: the planned tensors in the order of the shards; each is dropped before the next is asked for.
    """
    if len(shards) == 1:
        write_safetensors(folder / "model.safetensors", shards[0], tensors)
        return
    files = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    for file, plan in zip(files, shards, strict=True):
        write_safetensors(folder / file, plan, tensors)
    total_size = sum(planned.n_bytes for plan in shards for planned in plan)
    weight_map = {planned.name: file for file, plan in zip(files, shards, strict=True) for planned in plan}
    index = {"metadata": {"total_size": total_size}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def write_safetensors(path: Path, plan: Sequence[PlannedTensor], tensors: Iterator[Tensor]) -> None:
    """Writes one file; takes exactly `len(plan)` tensors, in order."""
    with path.open("wb") as file:
        header = _header(plan)
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        for planned in plan:
            write_values(file, next(tensors), planned)


def write_values(file: BinaryIO, tensor: Tensor, planned: PlannedTensor) -> memoryview:
    """Writes the tensor's values, row after row, and returns the bytes written."""
    assert (tuple(tensor.shape), tensor.dtype) == (planned.shape, planned.dtype), planned.name
    values = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
    file.write(values)
    return values


def _header(plan: Sequence[PlannedTensor]) -> bytes:
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
    return header + b" " * (-len(header) % _ALIGNMENT)
