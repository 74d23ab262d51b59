"""Checkpoint folders in Hugging Face's layout: config.json, and safetensors or .bin files, whole or in shards."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from circius.base.config import Window
from circius.base.errors import CheckpointError
from circius.weights.fields import read_json_object
from circius.weights.hf_config import read_hf_config
from circius.weights.names import EMBEDDING, OUTPUT, expected_shapes
from circius.weights.opened import Checkpoint, Keep, match_weights, refuse_unexpected, with_overrides
from circius.weights.packed import STEM, gather_packed
from circius.weights.pickles import read_pickle_index
from circius.weights.safetensors_header import read_safetensors_index
from circius.weights.stored import StoredTensor

CONFIG_FILE = "config.json"
WEIGHT_FILES = (  # in the order of preference, which is transformers' own, and then ours
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    f"{STEM}.safetensors",
    f"{STEM}.safetensors.index.json",
)
_FREQUENCIES = ".self_attn.rotary_emb.inv_freq"  # a table in old files that follows from rope_theta


class _Promised(NamedTuple):
    """A file of the checkpoint and the weights that the index says it has; None when there is no index."""

    file: Path
    names: frozenset[str] | None


def open_hf(folder: Path, *, window: Window | Keep, rope_theta: float | None) -> Checkpoint:
    """The checkpoint in `folder`.

    A tied model may carry a `lm_head.weight` all the same: it must equal the embedding, and is then left unread.

    Raises:
        CheckpointError: a part is missing, damaged, or of a kind that circius does not implement.
        ConfigError: the window or rope_theta that was asked for is impossible.
    """
    config, notes = read_hf_config(folder / CONFIG_FILE)
    present = [name for name in WEIGHT_FILES if (folder / name).is_file()]
    if not present:
        raise CheckpointError(f"{folder}: has {CONFIG_FILE} but no weights: looked for {', '.join(WEIGHT_FILES)}")
    if len(present) > 1:
        notes.append(f"{folder.name} holds the weights more than once: {present[0]} is read, not {present[1:]}")
    tensors: dict[str, StoredTensor] = {}
    for promised in _files(folder, present[0]):
        tensors |= _read_file(promised)
    tensors = gather_packed(tensors, expected_shapes(config))
    matched = match_weights(tensors, config, path=folder, source=CONFIG_FILE)
    if config.tied_output and OUTPUT in tensors:
        _check_tied(tensors[EMBEDDING], tensors.pop(OUTPUT))
    refuse_unexpected(tensors, config)
    return Checkpoint(
        path=folder,
        format="hf",
        config=with_overrides(config, notes, window=window, rope_theta=rope_theta),
        notes=tuple(notes),
        tensors=matched,
        rows_interleaved=False,
    )


def _files(folder: Path, name: str) -> list[_Promised]:
    """The files to read: the one called `name`, or those that it lists when it is an index."""
    if not name.endswith(".index.json"):
        return [_Promised(folder / name, None)]
    index = folder / name
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: has no weight_map from weights to files")
    shards: dict[str, set[str]] = {}
    for weight, shard in weight_map.items():
        if weight.endswith(_FREQUENCIES):
            continue
        if not isinstance(shard, str) or shard in ("", ".", "..") or {"/", "\\", "\0"} & set(shard):
            raise CheckpointError(f"{index}: {weight} is said to be in {shard!r}, which is no file of this folder")
        shards.setdefault(shard, set()).add(weight)
    absent = [shard for shard in sorted(shards) if not (folder / shard).is_file()]
    if absent:
        raise CheckpointError(
            f"{folder}: {len(absent)} of the {len(shards)} files that {name} lists are missing: {', '.join(absent)}"
        )
    return [_Promised(folder / shard, frozenset(names)) for shard, names in sorted(shards.items())]


def _read_file(promised: _Promised) -> Mapping[str, StoredTensor]:
    file, names = promised
    is_safe = file.suffix == ".safetensors"
    found: Mapping[str, StoredTensor] = read_safetensors_index(file) if is_safe else read_pickle_index(file)
    found = {name: tensor for name, tensor in found.items() if not name.endswith(_FREQUENCIES)}
    if names is None:
        return found
    if lacking := sorted(names - found.keys()):
        raise CheckpointError(f"{file}: the index says that it holds {lacking[0]}, but it does not")
    if extra := sorted(found.keys() - names):
        raise CheckpointError(f"{file}: holds {extra[0]}, of which the index says nothing")
    return found


def _check_tied(embedding: StoredTensor, output: StoredTensor) -> None:
    """Raises unless both hold the same values; a few rows at a time, for these are large."""
    same = output.shape == embedding.shape
    if same:
        pairs = zip(torch.split(embedding.view(), 4096), torch.split(output.view(), 4096), strict=True)
        same = all(torch.equal(first, second.to(first.dtype)) for first, second in pairs)
    if not same:
        raise CheckpointError(
            f"{output.file}: {CONFIG_FILE} says tie_word_embeddings, but {output.name} of shape {output.shape} differs "
            f"from {embedding.name} of shape {embedding.shape}: set tie_word_embeddings to false to use both"
        )
