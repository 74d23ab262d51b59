"""The native library: whether it is there, what it runs on, and the way to call it.

It is one file beside this one, built when the package was installed (`hatch_build.py`), called through ctypes, which
releases the GIL. It starts no threads: it is given the OpenMP runtime that torch has already loaded. Where it is absent
or cannot be used, everything works on torch's kernels, and `describe` says why.
"""

import ctypes
import os
import re
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from circius.base.errors import CirciusError, InvalidInputError

_FILE = Path(__file__).with_name("_native.so")
_INTERFACE = 1
"""CIRCIUS_INTERFACE in csrc/cpu.h: goes up on both sides together."""
_ISA_NAMES = ("portable C", "AVX2", "AVX-512 VNNI", "NEON")
ISAS = {"portable": 0, "avx2": 1, "avx512": 2, "neon": 3}
"""The instruction sets that `forced` knows."""
_BAD_ARGUMENT, _NO_MEMORY = 1, 2


@dataclass
class _State:
    """What was found when the library was first asked for. `off` is for tests."""

    library: ctypes.CDLL | None
    why_not: str = ""
    runtime: str = ""
    off: bool = False


def available() -> bool:
    """Whether the native kernels can be used."""
    state = _state()
    return state.library is not None and not state.off


def library() -> ctypes.CDLL:
    """The loaded library.

    Raises:
        CirciusError: there is none; ask `available` first.
    """
    state = _state()
    if state.library is None or state.off:
        raise CirciusError(f"the native kernels cannot be used: {state.why_not or 'switched off'}")
    return state.library


def describe() -> str:
    """One line for people: the instructions and the threads in use, or why there are no native kernels."""
    state = _state()
    if state.library is None or state.off:
        return f"no native kernels ({state.why_not or 'switched off'}), torch's are used"
    threads = f"threads of {state.runtime}" if state.runtime else "one thread, since torch's OpenMP was not found"
    return f"native kernels for {_ISA_NAMES[state.library.circius_isa()]}, {threads}"


def n_threads() -> int:
    """How many threads to ask the library for: as many as torch uses."""
    return torch.get_num_threads()


def check(code: int) -> None:
    """Turns what a function of the library returned into an exception, if it is an error.

    Raises:
        CirciusError: no memory, or arguments that the library refuses.
    """
    if code == _NO_MEMORY:
        raise CirciusError("the native kernels found no memory for their intermediate results")
    if code:
        raise CirciusError(f"the native kernels refused their arguments (code {code}), which is a mistake in circius")


@contextmanager
def disabled() -> Iterator[None]:
    """Everything inside runs as if the library were not there, in all threads. For tests."""
    state = _state()
    before, state.off = state.off, True
    try:
        yield
    finally:
        state.off = before


@contextmanager
def forced(isa: str) -> Iterator[None]:
    """Everything inside runs on the instructions named, in all threads. For tests.

    Raises:
        InvalidInputError: a name that is not in `ISAS`, or instructions that this processor does not have.
    """
    if isa not in ISAS or library().circius_force_isa(ISAS[isa]):
        raise InvalidInputError(
            f"{isa!r} cannot be forced here: one of {sorted(ISAS)} that the processor has is allowed"
        )
    try:
        yield
    finally:
        library().circius_force_isa(-1)


@cache
def _state() -> _State:
    return open_library(_FILE)


def open_library(file: Path) -> _State:
    """Loads `file` and hands it torch's threads; never raises, the answer says why there is no library."""
    if not file.exists():
        return _State(None, "they were not built when circius was installed: that takes gcc or clang")
    try:
        if _is_truncated(file):
            return _State(None, f"{file.name} is damaged: it ends too early; install circius again")
        found = ctypes.CDLL(str(file))
    except OSError as error:
        return _State(None, f"{file.name} cannot be loaded: {error}")
    try:
        interface = int(found.circius_interface())
    except AttributeError:
        return _State(None, f"{file.name} is not a library of circius; install circius again")
    if interface != _INTERFACE:
        return _State(None, f"{file.name} is of another version of circius; install circius again")
    return _State(found, runtime=_use_openmp(found))


def _is_truncated(file: Path) -> bool:
    """Whether an ELF file lacks its end: the loader would map what is not there, and the process would die of it."""
    with file.open("rb") as stream:
        head = stream.read(64)
    if head[:5] != b"\x7fELF\x02" or len(head) < 64:
        return len(head) < 64
    order = "<" if head[5] == 1 else ">"
    sections_at = struct.unpack_from(f"{order}Q", head, 40)[0]
    size, count = struct.unpack_from(f"{order}HH", head, 58)
    return bool(file.stat().st_size < sections_at + size * count)


def _use_openmp(found: ctypes.CDLL) -> str:
    """Gives the library the entry points of torch's OpenMP runtime; the name of its file, or "" if there is none."""
    found.circius_use_openmp.argtypes = [ctypes.c_void_p] * 3
    for path in _openmp_candidates():
        try:
            runtime = ctypes.CDLL(path, mode=os.RTLD_NOLOAD)
            entries = [
                ctypes.cast(getattr(runtime, name), ctypes.c_void_p)
                for name in ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
            ]
        except (OSError, AttributeError):  # not loaded, or without GNU's entry points
            continue
        found.circius_use_openmp(*entries)
        return Path(path).name
    return ""


def _openmp_candidates() -> list[str]:
    """Files of OpenMP runtimes that may be loaded, torch's own first."""
    home = Path(torch.__file__).parent
    pattern = re.compile(r"lib(gomp|omp|iomp5)\b.*\.(so|dylib)")
    beside = [file for folder in (home / "lib", home.parent / "torch.libs") for file in sorted(folder.glob("lib*"))]
    mapped: list[Path] = []
    if sys.platform == "linux":
        lines = Path("/proc/self/maps").read_text().splitlines()
        mapped = sorted({Path(line.split(maxsplit=5)[5]) for line in lines if line.count("/")})
    return [str(file) for file in (*beside, *mapped) if pattern.match(file.name)]
