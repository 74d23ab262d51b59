"""What the benchmarks here share: the machine's limits, whether it was left alone, and files of result lines."""

import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

from circius.engine import machine

RESULTS = Path(__file__).parent / "results"
POLL_S = 0.01
QUIET_SAMPLE_S = 1.0

T = TypeVar("T")


@dataclass(frozen=True)
class Finished:
    """A process that has ended: what it printed, how long it took, and the most memory that it had.

    first_output_s: from its start to its first byte on stdout; None if it printed nothing.
    peak_bytes: VmHWM from /proc, which counts pages of mapped files that were in use.
    """

    stdout: str
    seconds: float
    first_output_s: float | None
    peak_bytes: int


@dataclass(frozen=True)
class Attempt(Generic[T]):
    """A result and the share of the machine that others took while it was made."""

    result: T
    foreign_share: float | None

    @property
    def is_disturbed(self) -> bool:
        return machine.is_disturbed(self.foreign_share)


def run_process(command: Sequence[str | Path], *, timeout_s: float = 3600) -> Finished:
    """Runs a program to its end.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    with tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
        assert process.stdout is not None
        reader = _Reader(process.stdout)
        peak = 0
        while process.poll() is None:
            peak = max(peak, _peak_bytes(process.pid))
            if time.perf_counter() - started > timeout_s:
                process.kill()
            time.sleep(POLL_S)
        seconds = time.perf_counter() - started
        reader.join()
        if process.returncode:
            errors.seek(0)
            raise RuntimeError(f"{' '.join(map(str, command))} failed ({process.returncode}):\n{errors.read()[-2000:]}")
    first = None if reader.first_at is None else reader.first_at - started
    return Finished(reader.read.decode(errors="replace"), seconds, first, peak)


class _Reader(threading.Thread):
    """Reads a pipe to its end, and notes when its first byte came."""

    def __init__(self, pipe: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self._pipe, self.read, self.first_at = pipe, b"", None
        self.start()

    def run(self) -> None:
        self.first_at: float | None = None
        self.read = self._pipe.read(1)
        if self.read:
            self.first_at = time.perf_counter()
        self.read += self._pipe.read()


def _peak_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def undisturbed(work: Callable[[], T], *, tries: int = 3, patience_s: float = 300) -> Attempt[T]:
    """The work's result from a time when the machine was left alone: waits for one, and tries again if it was not.

    After so many tries the last result comes as it is, and says that it was disturbed.
    """
    for _ in range(tries):
        wait_until_quiet(patience_s)
        with machine.Watch() as watch:
            result = work()
        attempt = Attempt(result, watch.foreign_share)
        if not attempt.is_disturbed:
            break
    return attempt


def wait_until_quiet(patience_s: float) -> bool:
    """Whether others left the machine alone for a second, at last; gives up after `patience_s`."""
    deadline = time.perf_counter() + patience_s
    while True:
        with machine.Watch() as watch:
            time.sleep(QUIET_SAMPLE_S)
        if not machine.is_disturbed(watch.foreign_share):
            return True
        if time.perf_counter() > deadline:
            return False


def limits() -> dict[str, Any]:
    """What the machine does at most right now, for a result line."""
    import torch

    from circius.kernels.ceilings import measure_ceilings

    return asdict(measure_ceilings(torch.device("cpu")))


def append(file: Path, line: dict[str, Any]) -> None:
    """Adds one JSON line; the file and its folder are made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as opened:
        opened.write(json.dumps(line) + "\n")


def lines_of(file: Path) -> list[dict[str, Any]]:
    """The lines of a result file; none if there is no file."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().splitlines() if line]
