"""A run's folder: what it was asked for, what it wrote down, its checkpoints, what came out of it.

RUN/
    run.json         the configuration, complete; the machine; what was read; when it was at work
    metrics.jsonl    a line for each step, evaluation and sample
    checkpoints/     to go on from
    report.html
    model/ or adapter/
"""

import hashlib
import json
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from circius.base.errors import CheckpointError, ConfigError, InvalidInputError, StorageError
from circius.engine.machine import n_cores, processor_name
from circius.train.checkpoint import write_json_file
from circius.train.config import RunConfig, forbidden_changes
from circius.train.config_json import to_json

RUN_FILE, CHECKPOINTS, REPORT_FILE = "run.json", "checkpoints", "report.html"
MODEL, ADAPTER = "model", "adapter"
_LOCK_FILE = ".lock"
_SHOWN_CHANGES = 5


class RunFolder:
    """The folder of one run, new or gone back to.

    Raises:
        InvalidInputError: something else is in it.
        ConfigError: it is of a run with another configuration; the message names what differs.
        StorageError: it cannot be written.
    """

    def __init__(self, path: Path, config: RunConfig) -> None:
        self.path = path
        self.record = read_record(path)
        if self.record is not None:
            _check_same(path, self.record, config)
        elif path.exists():
            _check_empty(path)

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    def describe(self, config: RunConfig, facts: Mapping[str, Any]) -> None:
        """Writes down what the run is; when it was at work before stays as it is.

        facts: what was found out on the way, such as how many parameters there are.
        """
        content = to_json(config)
        sessions = self.record["sessions"] if self.record is not None else []
        self.record = {
            "config": content,
            "config_hash": config_hash(content),
            **facts,
            "environment": environment(),
            "sessions": sessions,
        }
        write_json_file(self.path / RUN_FILE, self.record)

    def begin_session(self, *, step: int, n_processes: int) -> None:
        """Writes down that the run is at work, from a step on."""
        assert self.record is not None
        self.record["sessions"].append(
            {"began": _now(), "from_step": step, "n_processes": n_processes, "ended": None, "why": None}
        )
        write_json_file(self.path / RUN_FILE, self.record)

    def end_session(self, *, step: int, why: str) -> None:
        """Writes down that it no longer is, and why."""
        assert self.record is not None
        self.record["sessions"][-1] |= {"ended": _now(), "to_step": step, "why": why}
        write_json_file(self.path / RUN_FILE, self.record)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps others from working in the folder at the same time, on systems that have file locks.

        Raises:
            StorageError: somebody is at work in it.
        """
        with _locked(self.path):
            yield


def read_record(path: Path) -> dict[str, Any] | None:
    """What a run's folder says of itself; None if it is no run's.

    Raises:
        CheckpointError: it is damaged.
    """
    file = path / RUN_FILE
    if not file.is_file():
        return None
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    if not isinstance(record, dict) or "config" not in record:
        raise CheckpointError(f"{file} is not what a run writes: it has no config")
    return record


def move_aside(path: Path) -> Path | None:
    """Renames a run's folder, so that another can begin; its new place, or None if there was nothing.

    Raises:
        InvalidInputError: it holds something else than a run.
        StorageError: it cannot be renamed, or somebody is at work in it.
    """
    if not path.exists():
        return None
    if read_record(path) is None:
        _check_empty(path)
    free = next(aside for n in range(1, 10**6) if not (aside := path.with_name(f"{path.name}.old-{n}")).exists())
    with _locked(path):
        try:
            return path.rename(free)
        except OSError as error:
            raise StorageError(f"cannot move {path} aside: {error.strerror}") from error


def config_hash(content: Mapping[str, Any]) -> str:
    """A short name for a configuration.

    >>> len(config_hash({"lr": 1}))
    16
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def environment() -> dict[str, Any]:
    """What the run is computed with and on."""
    has_gpu = torch.cuda.is_available()
    return {
        "circius": version("circius"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": torch.cuda.get_device_name() if has_gpu else processor_name(),
        "cores": n_cores(),
        "threads": torch.get_num_threads(),
        "command": " ".join(["circius", *sys.argv[1:]]),
    }


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds the lock of a run's folder, which comes into being with it."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        yield
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
        file = (path / _LOCK_FILE).open("w")
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StorageError(f"{path}: another process is at work on this run; wait for it") from error
        yield


def _check_same(path: Path, record: Mapping[str, Any], config: RunConfig) -> None:
    changes: Sequence[str] = forbidden_changes(record["config"], config)
    if changes:
        more = f", and {len(changes) - _SHOWN_CHANGES} more" if len(changes) > _SHOWN_CHANGES else ""
        raise ConfigError(
            f"{path} is of a run with another configuration: {'; '.join(changes[:_SHOWN_CHANGES])}{more}. Go on with "
            "the old one, choose another folder, or begin anew with --restart, which moves the old run aside"
        )


def _check_empty(path: Path) -> None:
    if not path.is_dir():
        raise InvalidInputError(f"{path} is a file: name a folder for the run")
    entries = sorted(entry.name for entry in path.iterdir() if entry.name != _LOCK_FILE)
    if entries:
        raise InvalidInputError(f"{path} holds {entries[0]}, and is not the folder of a run: choose another folder")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
