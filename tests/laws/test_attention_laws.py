"""The native attention: a query's result never depends on how the work was cut, to the last bit."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circius.base.config import Window
from circius.kernels import native
from circius.kernels.ring_attention import NewTokens, Workspace
from tests.unit.kernels.attention_cases import Tokens, attention, empty_rings, exact, in_chunks, random_tokens

pytestmark = pytest.mark.skipif(not native.available(), reason="the native library was not built")

CACHES = st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.int8])
MODELS = st.sampled_from([torch.float32, torch.float32, torch.bfloat16, torch.float16])
SHAPES = st.sampled_from([(4, 2, 8), (8, 2, 16), (6, 2, 48), (3, 3, 20), (7, 1, 32), (16, 1, 16), (1, 1, 64)])
WINDOWS = st.one_of(st.none(), st.integers(1, 200), st.sampled_from([1, 63, 64, 65, 128]))


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def cut(draw: st.DrawFn, length: int) -> list[int]:
    chunks = []
    while (left := length - sum(chunks)) > 0:
        chunks.append(min(left, draw(st.sampled_from([1, 1, 2, 7, 8, 48, 64, 65, 200, 400]))))
    return chunks


@pytest.mark.quick
@settings(max_examples=150, deadline=None)
@given(data=st.data(), shape=SHAPES, window=WINDOWS, cache_dtype=CACHES, dtype=MODELS, length=st.integers(1, 330))
def test_chunks_and_capacity_never_change_a_bit(
    data: st.DataObject,
    shape: tuple[int, int, int],
    window: Window,
    cache_dtype: torch.dtype,
    dtype: torch.dtype,
    length: int,
) -> None:
    tokens = random_tokens(length, *shape, dtype=dtype)
    least = length if window is None else window
    whole = in_chunks(tokens, [length], window=window, n_slots=least, cache_dtype=cache_dtype)
    chunks = cut(data.draw, length)
    n_slots = least + data.draw(st.sampled_from([0, 1, 8, 15, 64]))
    assert torch.equal(in_chunks(tokens, chunks, window=window, n_slots=n_slots, cache_dtype=cache_dtype), whole)
    if cache_dtype == torch.float32:
        assert (whole.double() - exact(tokens, window)).abs().max() < {torch.float32: 1e-5}.get(dtype, 2e-2)


@st.composite
def batches(draw: st.DrawFn) -> list[list[int]]:
    """For each of some rows, the chunks in which its tokens come."""
    return [cut(draw, draw(st.integers(1, 150))) for _ in range(draw(st.integers(2, 4)))]


@settings(max_examples=60, deadline=None)
@given(rows=batches(), shape=SHAPES, window=st.integers(1, 90), cache_dtype=CACHES, threads=st.sampled_from([1, 2]))
def test_neighbours_layers_and_threads_never_change_a_bit(
    rows: list[list[int]], shape: tuple[int, int, int], window: int, cache_dtype: torch.dtype, threads: int
) -> None:
    """Rows of several layers that share one tensor of rings, each with its own chunks, against each row alone."""
    sequences = [random_tokens(sum(chunks), *shape, seed=seed) for seed, chunks in enumerate(rows)]
    alone = [in_chunks(s, [len(s.query)], window=window, n_slots=window, cache_dtype=cache_dtype) for s in sequences]
    n_layers, workspace = 2, Workspace()
    rings = empty_rings(len(rows), shape[1], window, shape[2], cache_dtype, layers=n_layers)
    torch.set_num_threads(threads)
    starts = [0] * len(rows)
    for turn in range(max(map(len, rows))):
        active = [row for row, chunks in enumerate(rows) if turn < len(chunks)]
        new = [NewTokens(rings, row, starts[row], rows[row][turn]) for row in active]
        step = attention(new, sequences[0], window, cache_dtype, workspace)
        spans = [(row, starts[row], starts[row] + rows[row][turn]) for row in active]
        joined = Tokens(*map(torch.cat, zip(*(sequences[row].part(a, b) for row, a, b in spans), strict=True)))
        for layer in range(n_layers):
            found = step(layer, *joined).split([b - a for _, a, b in spans])
            for (row, a, b), part in zip(spans, found, strict=True):
                assert torch.equal(part, alone[row][a:b])
        for row, _, b in spans:
            starts[row] = b


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(1, 150), min_size=1, max_size=3), shape=SHAPES, window=WINDOWS, dtype=MODELS)
def test_sequences_without_a_cache_say_the_same(
    lengths: list[int], shape: tuple[int, int, int], window: Window, dtype: torch.dtype
) -> None:
    sequences = [random_tokens(n, *shape, seed=seed, dtype=dtype) for seed, n in enumerate(lengths)]
    fresh = attention([NewTokens(None, row, 0, n) for row, n in enumerate(lengths)], sequences[0], window, dtype)
    found = fresh(0, *(torch.cat(parts) for parts in zip(*sequences, strict=True))).split(lengths)
    for sequence, part in zip(sequences, found, strict=True):
        n = len(sequence.query)
        assert torch.equal(part, in_chunks(sequence, [n], window=window, n_slots=n, cache_dtype=dtype))
