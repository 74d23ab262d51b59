"""What a run wrote down: one JSON object a line, in `metrics.jsonl`; trackers of other makers get a copy."""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from circius.base.config import ModelConfig
from circius.base.errors import CheckpointError, CirciusError, StorageError
from circius.engine.workload import operations

METRICS_FILE = "metrics.jsonl"


class MetricsFile:
    """The file of a run, open at its end. A line is written whole and handed to the system at once."""

    def __init__(self, path: Path, *, offset: int) -> None:
        """offset: in bytes, where the run goes on; lines after it belong to steps that will be taken again, and go.

        Raises:
            CheckpointError: the file is shorter than that.
            StorageError: it cannot be written.
        """
        self._path = path
        try:
            self._file = path.open("ab")
            size = path.stat().st_size
            if size < offset:
                self._file.close()
                raise CheckpointError(
                    f"{path} has {size} bytes, but its checkpoint was made when it had {offset}: was it edited?"
                )
            self._file.truncate(offset)
            self._file.seek(offset)
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def write(self, record: Mapping[str, Any]) -> None:
        """One line.

        Raises:
            StorageError: the disk is full, say.
        """
        line = json.dumps(_finite(record), ensure_ascii=False, allow_nan=False) + "\n"
        try:
            self._file.write(line.encode())
            self._file.flush()
        except OSError as error:
            raise StorageError(f"{self._path} cannot be written: {error.strerror}") from error

    def settle(self) -> int:
        """Waits until all lines are on the disk; the bytes that they have."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise StorageError(f"{self._path} cannot be written: {error.strerror}") from error
        return self._file.tell()


def _finite(value: Any) -> Any:
    """The same with what JSON has no word for as text, so that a step that went wrong is written down too."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's file, without one that was cut off at the end; none if there is no file."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            try:
                records.append(json.loads(line))
            except ValueError as error:
                raise CheckpointError(f"{path}: line {len(records) + 1} is no JSON: {error}") from error
    return records


class Tracker(Protocol):
    """Somebody else's record of runs."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...


def check_trackers(names: Sequence[str] | None) -> tuple[str, ...]:
    """The trackers to use: those that are named, or with None TensorBoard if it is installed.

    Raises:
        CirciusError: one's package is not installed.
    """
    if names is None:
        return ("tensorboard",) if find_spec("tensorboard") is not None else ()
    for name in names:
        if find_spec(name) is None:
            raise CirciusError(
                f"the tracker {name} needs the package {name}: `pip install {name}`, or run without it; "
                f"{METRICS_FILE} is written in any case"
            )
    return tuple(names)


def open_tracker(name: str, folder: Path, *, first_step: int, settings: Mapping[str, Any]) -> Tracker:
    """The tracker of that name, for the run in `folder`.

    first_step: the next; what the tracker has of later ones is dropped where it can drop things.

    Raises:
        CirciusError: its package cannot be used.
    """
    makers: dict[str, Callable[[Path, int, Mapping[str, Any]], Tracker]] = {
        "tensorboard": _TensorBoard,
        "wandb": _Wandb,
        "mlflow": _Mlflow,
    }
    try:
        return makers[name](folder, first_step, settings)
    except ImportError as error:
        raise CirciusError(f"the tracker {name} cannot be used: {error}; run without it (trackers=[])") from error


class _TensorBoard:
    def __init__(self, folder: Path, first_step: int, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()


class _Wandb:
    def __init__(self, folder: Path, first_step: int, settings: Mapping[str, Any]) -> None:
        import wandb  # type: ignore[import-not-found]

        self._run = wandb.init(dir=str(folder), name=folder.name, id=folder.name, resume="allow", config=dict(settings))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)


class _Mlflow:
    def __init__(self, folder: Path, first_step: int, settings: Mapping[str, Any]) -> None:
        import mlflow  # type: ignore[import-not-found]

        mlflow.set_tracking_uri((folder / "mlflow").absolute().as_uri())
        mlflow.start_run(run_name=folder.name)
        self._log = mlflow.log_metrics

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._log(dict(values), step=step)


def training_operations(config: ModelConfig, lengths: Sequence[int], *, is_frozen: bool) -> int:
    """The additions and multiplications of one training step over sequences of these lengths.

    Forward is `engine/workload.py`'s: twice the parameters of all matrices but the embedding's lookup for each token,
    and attention inside the window. Backward is twice that, once for the inputs and once for the weights; with frozen
    weights (adapters) only once. So it is 6 times the parameters, or 4. What activation checkpointing computes again is
    not counted, nor are adapters themselves.

    >>> from circius.base.config import PRESETS
    >>> round(training_operations(PRESETS["v0.1"], [4096], is_frozen=False) / 4096 / 1e9, 1)  # GFLOP a token
    45.9
    """
    forward = sum(operations(config, begin=0, n_tokens=length, n_logits=length) for length in lengths)
    return forward * (2 if is_frozen else 3)
