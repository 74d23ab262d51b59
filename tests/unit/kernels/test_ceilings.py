"""The limits that are measured are real work: every byte read, every product counted. How fast is not tested."""

import ctypes

import pytest
import torch

from circius.kernels import native
from circius.kernels.ceilings import Ceilings, better, measure_ceilings

needs_library = pytest.mark.skipif(not native.available(), reason="no native library")


def read(memory: torch.Tensor, n_bytes: int, n_threads: int) -> int:
    total = ctypes.c_uint64()
    code = native.library().circius_read_memory(
        ctypes.c_void_p(memory.data_ptr()), ctypes.c_int64(n_bytes), n_threads, ctypes.byref(total)
    )
    native.check(code)
    return total.value


@needs_library
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("n_words", [8, 2**18, 2**18 + 8, 5 * 2**17])
def test_reading_depends_on_every_word(n_words: int, n_threads: int) -> None:
    memory = torch.randint(2**40, (n_words,))
    assert read(memory, 8 * n_words, n_threads) == int(memory.sum())


@needs_library
@pytest.mark.parametrize(("n_bytes", "n_threads"), [(63, 1), (-64, 1), (64, 0)])
def test_reading_refuses_what_it_cannot_do(n_bytes: int, n_threads: int) -> None:
    with pytest.raises(Exception, match="refused their arguments"):
        read(torch.zeros(64), n_bytes, n_threads)


@needs_library
@pytest.mark.parametrize("n_threads", [1, 2])
def test_products_of_bytes_are_counted_on_every_thread(n_threads: int) -> None:
    counts = []
    for n_rounds in (1, 10):
        n_operations, total = ctypes.c_int64(), ctypes.c_uint64()
        native.check(
            native.library().circius_multiply_bytes(
                ctypes.c_int64(n_rounds), n_threads, ctypes.byref(n_operations), ctypes.byref(total)
            )
        )
        counts.append(n_operations.value)
    assert counts[1] == 10 * counts[0]
    assert counts[0] % n_threads == 0


@pytest.mark.parametrize("with_library", [True, False])
def test_limits_are_measured_with_and_without_the_library(with_library: bool) -> None:
    n_threads = torch.get_num_threads()
    if with_library:
        found = measure_ceilings(torch.device("cpu"), read_bytes=2**16, side=16)
    else:
        with native.disabled():
            found = measure_ceilings(torch.device("cpu"), read_bytes=2**16, side=16)
        assert "int8" not in found.multiply
    assert found.read_one > 0
    assert found.read_all > 0
    assert found.multiply["float32"] > 0
    assert torch.get_num_threads() == n_threads


def test_the_better_of_two() -> None:
    one = Ceilings(read_one=1, read_all=5, multiply={"float32": 7, "int8": 1})
    other = Ceilings(read_one=2, read_all=4, multiply={"float32": 6, "int8": 3})
    assert better(one, other) == Ceilings(read_one=2, read_all=5, multiply={"float32": 7, "int8": 3})
