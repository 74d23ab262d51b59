"""What else the machine is doing: a benchmark on a busy one measures the neighbours. No torch here."""

import os
import platform
import sys
import time
from pathlib import Path
from typing import NamedTuple, Self

_STAT = Path("/proc/stat")
_IDLE_FIELDS = (3, 4)  # idle, waiting for a disk
_GUEST_FIELD = 8  # it and what follows are counted in the fields before already
MOST_FOREIGN_SHARE = 0.05
"""Above this share of all cores used by others, a measurement counts as disturbed."""


class _Moment(NamedTuple):
    elapsed_s: float
    own_s: float
    busy_s: float | None


class Watch:
    """How much of the machine others used while a block ran, on systems that tell (Linux).

    Own time is this process's, all its threads, and that of child processes that have ended.
    """

    def __enter__(self) -> Self:
        self._before = _now()
        self.foreign_share: float | None = None
        """Of all cores, from 0 to 1, time that a hypervisor gave to other machines included; None if unknown."""
        return self

    def __exit__(self, *_: object) -> None:
        before, after = self._before, _now()
        if before.busy_s is None or after.busy_s is None:
            return
        elapsed_s = max(after.elapsed_s - before.elapsed_s, 1e-9) * n_cores()
        foreign_s = after.busy_s - before.busy_s - (after.own_s - before.own_s)
        self.foreign_share = min(1.0, max(0.0, foreign_s / elapsed_s))


def is_disturbed(foreign_share: float | None) -> bool:
    """Whether others computed so much that a measurement should be taken again; not where nobody can tell."""
    return foreign_share is not None and foreign_share > MOST_FOREIGN_SHARE


def n_cores() -> int:
    return os.cpu_count() or 1


def load() -> float | None:
    """How many processes wanted a core on average over the last minute; None on systems that don't count."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def peak_memory_bytes() -> int | None:
    """The most memory that this process has held, pages of mapped files included; None where it is not counted."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def processor_name() -> str:
    """What the system calls the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _now() -> _Moment:
    times = os.times()
    own_s = time.process_time() + times.children_user + times.children_system
    return _Moment(time.perf_counter(), own_s, _busy_s())


def _busy_s() -> float | None:
    try:
        ticks = [int(field) for field in _STAT.read_text().split("\n", 1)[0].split()[1:]]
    except OSError:
        return None
    used = (n for field, n in enumerate(ticks[:_GUEST_FIELD]) if field not in _IDLE_FIELDS)
    return sum(used) / os.sysconf("SC_CLK_TCK")
