"""What this machine does at most, measured now: reading memory, and multiplying in each number format.

A speed means little without them: another hour, or another neighbour on the same machine, and they have changed.
"""

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from circius.kernels import native
from circius.kernels.precision import multiplies_fast

READ_BYTES = 2**29
"""Far more than any cache holds."""
_SIDE = 2048
_ROUNDS = 1_000_000
_REPEATS = 5


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """Bytes a second and operations a second, products and sums counted apart, the best of some tries.

    read_one, read_all: with one thread, and with all that are in use; on a GPU they are the same.
    multiply: by the name of the number format, "int8" among them where the native kernels have instructions for it.
    """

    read_one: float
    read_all: float
    multiply: dict[str, float]


def measure_ceilings(device: torch.device, *, read_bytes: int = READ_BYTES, side: int = _SIDE) -> Ceilings:
    """Measures; takes about a second on a processor, and `read_bytes` of memory.

    side: of the square matrices that are multiplied.
    """
    read_one, read_all = _read(device, read_bytes)
    formats = [dtype for dtype in (torch.float32, torch.bfloat16) if multiplies_fast(dtype, device)]
    multiply = {str(dtype).removeprefix("torch."): _multiply(dtype, device, side) for dtype in formats}
    in_bytes = _multiply_bytes(_ROUNDS) if device.type == "cpu" else None
    return Ceilings(
        read_one=read_one, read_all=read_all, multiply=multiply if in_bytes is None else {**multiply, "int8": in_bytes}
    )


def better(one: Ceilings, other: Ceilings) -> Ceilings:
    """The higher of each pair: both were reached."""
    return Ceilings(
        read_one=max(one.read_one, other.read_one),
        read_all=max(one.read_all, other.read_all),
        multiply={name: max(speed, other.multiply.get(name, 0.0)) for name, speed in one.multiply.items()},
    )


def _read(device: torch.device, n_bytes: int) -> tuple[float, float]:
    memory = torch.ones(n_bytes // 4, device=device)
    if device.type == "cpu" and native.available():
        one = _fastest(lambda: _read_natively(memory, 1), device)
        every = _fastest(lambda: _read_natively(memory, native.n_threads()), device)
        return n_bytes / one, n_bytes / every
    every = _fastest(lambda: torch.dot(memory, memory), device)
    if device.type != "cpu":
        return n_bytes / every, n_bytes / every
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        one = _fastest(lambda: torch.dot(memory, memory), device)
    finally:
        torch.set_num_threads(n_threads)
    return n_bytes / one, n_bytes / every


def _read_natively(memory: torch.Tensor, n_threads: int) -> int:
    total = ctypes.c_uint64()
    n_bytes = ctypes.c_int64(memory.numel() * memory.element_size())
    pointer = ctypes.c_void_p(memory.data_ptr())
    native.check(native.library().circius_read_memory(pointer, n_bytes, n_threads, ctypes.byref(total)))
    return total.value


def _multiply(dtype: torch.dtype, device: torch.device, side: int) -> float:
    left, right = (torch.ones(side, side, dtype=dtype, device=device) for _ in range(2))
    return 2 * side**3 / _fastest(lambda: left @ right, device)


def _multiply_bytes(n_rounds: int) -> float | None:
    """Operations a second of the native kernels' instructions for bytes, if they have any."""
    if not native.available():
        return None
    n_operations, total = ctypes.c_int64(), ctypes.c_uint64()

    def multiply() -> None:
        native.check(
            native.library().circius_multiply_bytes(
                ctypes.c_int64(n_rounds), native.n_threads(), ctypes.byref(n_operations), ctypes.byref(total)
            )
        )

    seconds = _fastest(multiply, torch.device("cpu"))
    return n_operations.value / seconds if n_operations.value else None


def _fastest(work: Callable[[], object], device: torch.device) -> float:
    """The seconds of the fastest of some tries, after one that warms up."""
    taken = []
    for _ in range(_REPEATS + 1):
        started = time.perf_counter()
        work()
        synchronise(device)
        taken.append(time.perf_counter() - started)
    return min(taken[1:])


def synchronise(device: torch.device) -> None:
    """Waits until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
