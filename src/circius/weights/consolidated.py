"""Checkpoint folders in Mistral's own layout: params.json and one consolidated file, .safetensors or .pth."""

import re
from collections.abc import Mapping
from pathlib import Path

from circius.base.config import Window
from circius.base.errors import CheckpointError
from circius.weights.names import OUTPUT, to_consolidated
from circius.weights.opened import Checkpoint, Keep, match_weights, refuse_unexpected, with_overrides
from circius.weights.params_json import read_params_json
from circius.weights.pickles import read_pickle_index
from circius.weights.safetensors_header import read_safetensors_index
from circius.weights.stored import StoredTensor

PARAMS_FILE = "params.json"
WEIGHT_FILES = ("consolidated.safetensors", "consolidated.00.safetensors", "consolidated.00.pth")  # by preference
_PART = re.compile(r"consolidated[.-](\d+)(-of-\d+)?\.(pth|safetensors)")


def open_consolidated(folder: Path, *, window: Window | Keep, rope_theta: float | None) -> Checkpoint:
    """The checkpoint in `folder`. Without an output matrix the model is tied: its embedding makes the logits.

    Raises:
        CheckpointError: a part is missing, damaged, or of a kind that circius does not implement.
        ConfigError: the window or rope_theta that was asked for is impossible.
    """
    _refuse_parts(folder)
    present = [name for name in WEIGHT_FILES if (folder / name).is_file()]
    if not present:
        raise CheckpointError(f"{folder}: has {PARAMS_FILE} but no weights: looked for {', '.join(WEIGHT_FILES)}")
    file = folder / present[0]
    is_safe = file.suffix == ".safetensors"
    found: Mapping[str, StoredTensor] = read_safetensors_index(file) if is_safe else read_pickle_index(file)
    config, notes = read_params_json(
        folder / PARAMS_FILE, tied_output=to_consolidated(OUTPUT) not in found, rope_theta=rope_theta
    )
    if len(present) > 1:
        notes.append(f"{folder.name} holds the weights more than once: {present[0]} is read, not {present[1:]}")
    if config.tied_output:
        notes.append(f"{file.name} has no {to_consolidated(OUTPUT)}: the embedding is the output too (tied)")
    tensors = match_weights(found, config, path=file, source=PARAMS_FILE, own_name=to_consolidated)
    refuse_unexpected(found, config, own_name=to_consolidated)
    return Checkpoint(
        path=folder,
        format="consolidated",
        config=with_overrides(config, notes, window=window, rope_theta=rope_theta),
        notes=tuple(notes),
        tensors=tensors,
        rows_interleaved=True,
    )


def _refuse_parts(folder: Path) -> None:
    """Raises when the weights are cut over several files, one for each GPU of tensor parallelism."""
    parts = sorted(path.name for path in folder.iterdir() if (m := _PART.fullmatch(path.name)) and (m[2] or int(m[1])))
    if parts:
        raise CheckpointError(
            f"{folder}: the weights are cut into several consolidated files ({', '.join(parts)}, ...); circius reads "
            f"one: {' or '.join(WEIGHT_FILES)}"
        )
