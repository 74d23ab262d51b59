"""Runs one program in a jail and tells whether it went past its last line."""

import os
import secrets
import selectors
import signal
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from circius.base.errors import SandboxError
from circius.evals.sandbox.jail import Jail, environment, interpreter
from circius.evals.sandbox.limits import Limits
from circius.evals.sandbox.watch import memory_of_tree

_KEPT_BYTES = 4096
_LOOK_EVERY_S = 0.03
_GONE_WITHIN_S = 3.0
_OUT_OF_TIME = (-signal.SIGXCPU, 128 + signal.SIGXCPU) if hasattr(signal, "SIGXCPU") else ()
_MAX_PROGRAM_BYTES = 4 * 2**20


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of a program.

    Attributes:
        passed: whether it ran past its last line.
        why: "passed", or in one line what kept it from that.
        seconds: how long it took, its walls and Python's start included.
    """

    passed: bool
    why: str
    seconds: float


def run_jailed(program: str, jail: Jail, limits: Limits) -> Verdict:
    """Runs a program in a jail that is known to work; nobody's turn is waited for."""
    try:
        source = program.encode("utf-8")
    except UnicodeEncodeError:
        return Verdict(passed=False, why="SyntaxError: the program is no Unicode text", seconds=0.0)
    if len(source) > _MAX_PROGRAM_BYTES:
        return Verdict(
            passed=False, why=f"the program has {len(source)} bytes, {_MAX_PROGRAM_BYTES} at most", seconds=0.0
        )
    nonce = secrets.token_bytes(32)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="circius-jail-") as scratch, tempfile.TemporaryFile() as given:
        given.write(_settings(jail, limits, Path(scratch)) + nonce + source)
        given.seek(0)
        command = jail.command([*interpreter(), "-c", _inside()], limits, Path(scratch))
        try:
            process = subprocess.Popen(
                command,
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment(),
                cwd=scratch,
                start_new_session=True,
            )
        except OSError as error:
            raise SandboxError(f"cannot start {command[0]}: {error.strerror or error}") from error
        with process:
            try:
                report, said, stopped = _listen(process, begun + limits.timeout_s, limits)
            finally:
                _kill(process)
    seconds = time.monotonic() - begun
    # A program that forked may report once for each process that reached the end.
    passed = bool(report) and report == nonce * (len(report) // len(nonce))
    if passed:
        return Verdict(passed=True, why="passed", seconds=seconds)
    if process.returncode in _OUT_OF_TIME and not stopped:
        stopped = f"used more than {limits.processor_s} s of processor time"
    return Verdict(passed=False, why=stopped or _reason(said, process.returncode), seconds=seconds)


def _settings(jail: Jail, limits: Limits, scratch: Path) -> bytes:
    settings = {**asdict(limits), "folder": jail.folder(scratch), "limits_processes": jail.limits_processes}
    return "\t".join(f"{name}={value}" for name, value in settings.items()).encode() + b"\n"


@cache
def _inside() -> str:
    return files(__package__).joinpath("inside.py").read_text(encoding="utf-8")


def _listen(process: subprocess.Popen[bytes], deadline: float, limits: Limits) -> tuple[bytes, bytes, str]:
    """Reads until both streams end: the report, the end of stderr, and why the program was stopped if it was."""
    assert process.stdout is not None
    assert process.stderr is not None
    kept = {process.stdout.fileno(): b"", process.stderr.fileno(): b""}
    report, errors = kept
    with selectors.DefaultSelector() as selector:
        for descriptor in kept:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                return kept[report], kept[errors], f"timed out after {limits.timeout_s:g} s"
            if memory_of_tree(process.pid) > limits.memory_bytes:
                return kept[report], kept[errors], f"used more than {limits.memory_bytes / 2**20:.0f} MiB of memory"
            for key, _ in selector.select(min(left, _LOOK_EVERY_S)):
                piece = os.read(key.fd, 65536)
                if not piece:
                    selector.unregister(key.fd)
                # Of the report the beginning matters, of stderr the end: neither grows, whatever is written.
                grown = kept[key.fd] + piece
                kept[key.fd] = grown[:_KEPT_BYTES] if key.fd == report else grown[-_KEPT_BYTES:]
    return kept[report], kept[errors], ""


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends the jail, and waits until all in it are gone: they die one after the other, when the first one has.

    Without a jail the session is all that can be found of the program's processes.
    """
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()
    assert process.stderr is not None
    patience = time.monotonic() + _GONE_WITHIN_S
    with selectors.DefaultSelector() as selector:
        selector.register(process.stderr, selectors.EVENT_READ)
        # Each of them holds the other end of stderr, or has closed it: it ends with the last of those that hold it.
        while (left := patience - time.monotonic()) > 0 and selector.select(left):
            if not os.read(process.stderr.fileno(), 65536):
                return


def _reason(said: bytes, code: int) -> str:
    """The last line that was said on stderr, which for an exception is its name and message; else the exit code."""
    lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    if lines:
        return "".join(character if character.isprintable() else "?" for character in lines[-1])[:300]
    return f"ended before its last line (exit code {code})"
