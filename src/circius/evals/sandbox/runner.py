"""Programs in turn: the same limits for all, no more at once than there is room for."""

import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from circius.base.errors import InvalidInputError, SandboxError
from circius.evals.sandbox.jail import Jail, Kind
from circius.evals.sandbox.limits import Limits
from circius.evals.sandbox.probe import find_jail
from circius.evals.sandbox.running import Verdict, run_jailed


class Sandbox:
    """Runs programs with the same limits, no more than `n_at_once` at a time however many threads ask."""

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        n_at_once: int | None = None,
        kind: Kind | None = None,
        unsafe: bool = False,
    ) -> None:
        """Finds a jail that works here, which takes a moment, once a process.

        kind: insist on one way; by default bubblewrap if it works, else unshare.
        unsafe: where no jail works, run programs unguarded, as this user, with limits of time and memory alone. For
            machines that are thrown away afterwards; `jail.kind` tells whether it came to that.

        Raises:
            SandboxError: no jail works here, and `unsafe` was not asked for, or this is no POSIX system.
        """
        if n_at_once is not None and n_at_once < 1:
            raise InvalidInputError(f"n_at_once must be 1 or more, got {n_at_once}")
        self.limits = limits or Limits()
        self.n_at_once = n_at_once or os.cpu_count() or 1
        self.jail = _jail_or_none(kind) if unsafe else find_jail(kind)
        self._gate = threading.BoundedSemaphore(self.n_at_once)

    def run(self, program: str) -> Verdict:
        """Runs one program, waiting for a free place if need be.

        Raises:
            SandboxError: the jail itself could not be started.
        """
        with self._gate:
            return run_jailed(program, self.jail, self.limits)

    def run_all(self, programs: Sequence[str]) -> list[Verdict]:
        """Runs programs side by side; verdicts in their order."""
        with ThreadPoolExecutor(max_workers=self.n_at_once) as pool:
            return list(pool.map(self.run, programs))


def run(
    program: str,
    *,
    timeout_s: float = Limits.timeout_s,
    processor_s: int = Limits.processor_s,
    memory_bytes: int = Limits.memory_bytes,
    processes: int = Limits.processes,
    file_bytes: int = Limits.file_bytes,
    unsafe: bool = False,
) -> Verdict:
    """Runs a program with nothing around it but the walls, and tells whether it ran past its last line.

    It is a Python module with the standard library alone, in an empty folder, without network, stdin or environment.
    In one process no more run at once than there are cores, whoever calls.

    unsafe: see `Sandbox`.

    Raises:
        SandboxError: no jail works here, and `unsafe` was not asked for.
        InvalidInputError: a limit that Python cannot live with.
    """
    limits = Limits(
        timeout_s=timeout_s,
        processor_s=processor_s,
        memory_bytes=memory_bytes,
        processes=processes,
        file_bytes=file_bytes,
    )
    shared = _shared(unsafe)
    with shared._gate:
        return run_jailed(program, shared.jail, limits)


@cache
def _shared(unsafe: bool) -> Sandbox:
    return Sandbox(unsafe=unsafe)


def _jail_or_none(kind: Kind | None) -> Jail:
    try:
        return find_jail(kind)
    except SandboxError:
        if os.name != "posix":
            raise SandboxError(f"programs cannot be run on {sys.platform}, not even unguarded: use Linux") from None
        return Jail(kind="none")
