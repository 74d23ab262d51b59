"""Named tensors of a checkpoint on disk: safetensors, written by one process or by all, read by any number of them.

Whole tensors go into one file, as the rest of circius writes them. Tensors of which every process holds a part
(DTensors) are written by torch.distributed.checkpoint, a file for each process, and cut anew when they are read.
"""

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor

from circius.base.errors import CheckpointError
from circius.train.world import World
from circius.weights.plan import PlannedTensor
from circius.weights.write_safetensors import write_safetensors

WHOLE_FILE = "tensors.safetensors"


def is_split(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a process holds but a part of some of these."""
    return any(isinstance(tensor, DTensor) for tensor in tensors.values())


def n_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Of all values, wherever they are."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def write_tensors(folder: Path, tensors: Mapping[str, Tensor], world: World) -> None:
    """Writes tensors, none of them scalar, into a folder that is there. Every process calls this with the same names.

    Raises:
        OSError: as the system says.
    """
    if is_split(tensors):
        with _quiet():
            writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
            save({name: tensor.detach() for name, tensor in tensors.items()}, storage_writer=writer)
    elif world.is_first:
        order = sorted(tensors, key=lambda name: -tensors[name].element_size())
        plan = [
            PlannedTensor(hf_name=name, name=name, shape=tuple(tensors[name].shape), dtype=tensors[name].dtype)
            for name in order
        ]
        write_safetensors(folder / WHOLE_FILE, plan, (tensors[name].detach().cpu() for name in order))
    _settle(folder)


def tensors_in(folder: Path) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """The shape and dtype of each tensor in a folder, whole, by name.

    Raises:
        CheckpointError: the files cannot be read.
    """
    try:
        with _quiet():
            metadata = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{folder} cannot be read: {error}") from error
    return {
        name: (tuple(stored.size), stored.properties.dtype)
        for name, stored in metadata.items()
        if isinstance(stored, TensorStorageMetadata)
    }


def read_tensors(folder: Path, into: Mapping[str, Tensor]) -> None:
    """Fills tensors with what a folder has under their names. Every process calls this, however many there are.

    Raises:
        CheckpointError: one is missing or has another shape, or the files cannot be read.
    """
    stored = tensors_in(folder)
    for name, tensor in into.items():
        if name not in stored:
            raise CheckpointError(f"{folder} has no {name}, which this run needs")
        if stored[name] != (tuple(tensor.shape), tensor.dtype):
            raise CheckpointError(
                f"{folder}: {name} is {stored[name][0]} of {stored[name][1]}, and {tuple(tensor.shape)} of "
                f"{tensor.dtype} is needed"
            )
    if not into:
        return
    held = {name: tensor.detach() for name, tensor in into.items()}
    try:
        if (folder / WHOLE_FILE).is_file() and not is_split(into):
            with safe_open(folder / WHOLE_FILE, framework="pt") as opened:
                for name, tensor in held.items():
                    tensor.copy_(opened.get_tensor(name))
        else:
            with _quiet():
                load(held, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=not is_split(into))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise CheckpointError(f"{folder} cannot be read: {error}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """torch says on every call that nothing is distributed when nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _settle(folder: Path) -> None:
    """Waits until the files are on the disk; each process knows of those on its own machine."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
