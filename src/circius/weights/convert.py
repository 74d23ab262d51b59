"""From one checkpoint layout to another, values unchanged unless a dtype is asked for."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from circius.base.errors import InvalidInputError
from circius.weights.checkpoint import open_checkpoint
from circius.weights.opened import Checkpoint
from circius.weights.save import Extra, Progress, WrittenCheckpoint, write_checkpoint

_TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def convert(
    source: Path | Checkpoint,
    target: Path,
    *,
    to: str,
    dtype: torch.dtype | None = None,
    quantization: str | None = None,
    overwrite: bool = False,
    extra: Extra | None = None,
    metadata: Mapping[str, object] | None = None,
    on_progress: Progress | None = None,
) -> WrittenCheckpoint:
    """Writes the weights of `source` in another layout, one tensor in memory at a time.

    The arguments are `write_checkpoint`'s. Tokenizer files are the caller's to add, through `extra` or `metadata`.
    From one Hugging Face folder to another, the ids of the special tokens in config.json are kept. Packed weights are
    written as the numbers that they stand for, since no other software reads them packed.

    Raises:
        CirciusError: as `open_checkpoint` and `write_checkpoint`; InvalidInputError when one of source and target
            lies inside the other.
    """
    source_path = source.path if isinstance(source, Checkpoint) else Path(source).expanduser()
    target = Path(target).expanduser()
    check_apart(source_path, target)
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source_path)
    if to == "hf" and checkpoint.format == "hf":
        metadata = {**token_ids(checkpoint.path), **(metadata or {})}
    written = write_checkpoint(
        _CheckpointSource(checkpoint),
        target,
        to=to,
        dtype=dtype,
        quantization=quantization,
        overwrite=overwrite,
        extra=extra,
        metadata=metadata,
        on_progress=on_progress,
    )
    if not checkpoint.is_packed:
        return written
    note = f"packed weights ({checkpoint.stored_as}) have a place in no other layout: written as {written.stored_as}"
    return replace(written, notes=(note, *written.notes))


class _CheckpointSource:
    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self.config = checkpoint.config
        self.dtype = checkpoint.dtype

    def dtype_of(self, name: str) -> torch.dtype:
        return self._checkpoint.tensors[name].dtype

    def read(self, name: str) -> Tensor:
        return self._checkpoint.read(name)


def check_apart(source: Path, target: Path) -> None:
    """Raises InvalidInputError if writing the target could reach into the source."""
    one, other = source.resolve(), target.resolve()
    if one == other:
        raise InvalidInputError(f"source and target are both {one}: choose another target")
    # A GGUF file may lie beside its source's files, but no folder may be replaced or filled under the reader.
    if one.is_relative_to(other) or (other.is_relative_to(one) and other.suffix != ".gguf"):
        raise InvalidInputError(f"source {one} and target {other} lie inside one another: choose another target")


def token_ids(folder: Path) -> dict[str, object]:
    """The ids of special tokens in the config.json of a Hugging Face folder."""
    described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return {key: described[key] for key in _TOKEN_IDS if described.get(key) is not None}
