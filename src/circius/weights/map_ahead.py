"""Pages of mapped files put into the process's page table ahead of the first pass, which would stop at each of them."""

import ctypes
import mmap
import sys
import threading
from collections.abc import Iterable

from torch import Tensor

_POPULATE_READ = 22
"""MADV_POPULATE_READ of <linux/mman.h>, which Linux has from 5.14 on."""


def map_ahead(tensors: Iterable[Tensor]) -> threading.Thread:
    """Starts to map the memory of these tensors for reading, in their order, and returns the thread that does it.

    They stay alive until it is through. Where the system has no such call, pages come as they are touched, as ever.
    """
    thread = threading.Thread(target=_map_all, args=(list(tensors),), name="map-ahead", daemon=True)
    thread.start()
    return thread


def _map_all(tensors: list[Tensor]) -> None:
    if sys.platform != "linux":
        return
    madvise = ctypes.CDLL(None).madvise  # called so, it lets other threads of Python run meanwhile
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for tensor in tensors:
        begin = tensor.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
        if madvise(begin, tensor.data_ptr() + tensor.nbytes - begin, _POPULATE_READ):
            return
