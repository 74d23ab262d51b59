"""All that a run needs to go on as if it had never stopped, in folders that are whole or not there.

    RUN/checkpoints/step-00000100/
        model/  optimizer/      tensors; of the weights those that are trained
        process-00000.json      for each process its random numbers
        state.json              all else, and how long each file is; written last

A folder is written beside its place and renamed, so that killing the process at any moment costs the steps since the
last one and nothing more. Which one is the latest is found by looking; there is no pointer that could be wrong.
"""

import errno
import json
import os
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from circius.base.errors import CheckpointError, StorageError
from circius.train.stored_state import n_bytes, read_tensors, tensors_in, write_tensors
from circius.train.world import World
from circius.weights.target import check_space, in_units

T = TypeVar("T")
STATE_FILE = "state.json"
FORMAT = 1
_PREFIX = "step-"
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A whole one. state: what `write_checkpoint` was given, with `format`, `step`, `n_processes` and `files`."""

    folder: Path
    step: int
    state: Mapping[str, Any]

    def tensors(self, group: str) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of the tensors of a group, by name."""
        return tensors_in(self.folder / group)

    def read(self, group: str, into: Mapping[str, Tensor]) -> None:
        """Fills tensors of a group; every process calls this.

        Raises:
            CheckpointError: what is there does not fit.
        """
        read_tensors(self.folder / group, into)

    def restore_random(self, world: World) -> bool:
        """Sets this process's random numbers to where they were; whether there were any for it.

        A process that was not there then keeps those that it has: what it drops out is then a new choice.
        """
        path = self.folder / _own_file(world.rank)
        if path.is_file():
            _set_random(json.loads(path.read_text(encoding="utf-8")))
        return path.is_file()


def find_checkpoints(folder: Path) -> list[Checkpoint]:
    """The whole ones in a run's folder of checkpoints, the latest last.

    Raises:
        CheckpointError: one was written by a later version.
    """
    found = [_opened(path) for path in folder.glob(f"{_PREFIX}*")] if folder.is_dir() else []
    return sorted((one for one in found if one is not None), key=lambda one: one.step)


def write_checkpoint(
    folder: Path, step: int, groups: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], world: World
) -> Checkpoint:
    """Writes `folder/step-...`, every process its part; all of them call this.

    groups: tensors by name, a folder for each group; none of them scalar.

    Raises:
        StorageError: the disk is full, say. Nothing is left of it then, and older ones are as they were.
    """
    target = folder / f"{_PREFIX}{step:08d}"
    temporary = folder / f".{target.name}.partial"
    size = sum(n_bytes(tensors) for tensors in groups.values())

    def make() -> None:
        remove_unfinished(folder)
        check_space(folder, size)
        for name in groups:
            (temporary / name).mkdir(parents=True)

    def write() -> None:
        for name, tensors in groups.items():
            write_tensors(temporary / name, tensors, world)
        _write_settled(temporary / _own_file(world.rank), _random_state())

    def finish() -> None:
        files = {str(path.relative_to(temporary)): path.stat().st_size for path in temporary.rglob("*.*")}
        whole = {**state, "format": FORMAT, "step": step, "n_processes": world.size, "files": files}
        _write_settled(temporary / STATE_FILE, whole)
        if target.exists():  # one that this run has come back behind, or that is damaged
            _discard(target)
        temporary.rename(target)
        _settle_names(folder)

    try:
        for part, is_for_all in ((make, False), (write, True), (finish, False)):
            work = part if is_for_all or world.is_first else _nothing
            world.together(partial(_storing, work, target, size))
    except StorageError:
        if world.is_first:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    made = _opened(target)
    assert made is not None, target
    return made


def keep_checkpoints(folder: Path, *, last: int, best: int | None = None) -> None:
    """Removes all but the last so many, and the one of the step `best`."""
    for old in find_checkpoints(folder)[:-last]:
        if old.step != best:
            _discard(old.folder)


def remove_unfinished(folder: Path) -> None:
    """Removes what a killed process was writing, or removing."""
    for path in folder.glob(f".{_PREFIX}*"):
        shutil.rmtree(path, ignore_errors=True)


def write_json_file(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a small file, whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.partial")

    def write() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_settled(temporary, content)
        temporary.replace(path)

    _storing(write, path, 0)


def _opened(folder: Path) -> Checkpoint | None:
    """The checkpoint in a folder; None if something of it is missing."""
    try:
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        sizes = {name: (folder / name).stat().st_size for name in state["files"]}
    except (OSError, ValueError, KeyError):
        return None
    if state.get("format") != FORMAT:
        raise CheckpointError(
            f"{folder} has format {state.get('format')!r}, and this circius reads {FORMAT}: it is of another version"
        )
    return Checkpoint(folder=folder, step=state["step"], state=state) if sizes == state["files"] else None


def _discard(folder: Path) -> None:
    """Removes a checkpoint: first its name, so that no half of it can be taken for a whole one."""
    hidden = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(hidden, ignore_errors=True)
    folder.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _storing(work: Callable[[], T], target: Path, size: int) -> T:
    """What `work` gives; what goes wrong on the disk is said in our words.

    Raises:
        StorageError: what the system said.
    """
    try:
        return work()
    except CheckpointException as error:
        causes = [cause for cause, _ in error.failures.values()]
        raise _storage_error(
            next((cause for cause in causes if isinstance(cause, OSError)), error), target, size
        ) from error
    except OSError as error:
        raise _storage_error(error, target, size) from error


def _storage_error(error: BaseException, target: Path, size: int) -> StorageError:
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return StorageError(f"no space left while writing {target} ({in_units(size)}): free some; nothing was lost")
    said = error.strerror if isinstance(error, OSError) else None
    return StorageError(f"cannot write {target}: {said or error}; nothing was lost")


def _nothing() -> None:
    """What the other processes do while the first one writes."""


def _own_file(rank: int) -> str:
    return f"process-{rank:05d}.json"


def _random_state() -> dict[str, Any]:
    """Where every generator of random numbers is."""
    version, numbers, gauss = random.getstate()
    name, keys, place, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [name, np.asarray(keys).tolist(), place, has_gauss, cached],
        "torch": torch.get_rng_state().tolist(),
        "cuda": torch.cuda.get_rng_state().tolist() if torch.cuda.is_available() else None,
    }


def _set_random(state: Mapping[str, Any]) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, place, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), place, has_gauss, cached))
    torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8))
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(torch.tensor(state["cuda"], dtype=torch.uint8))


def _write_settled(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON and waits until it is on the disk."""
    with path.open("w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())


def _settle_names(folder: Path) -> None:
    """Waits until a renaming is on the disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
