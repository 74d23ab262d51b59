"""A packed model on the native kernels: not a bit of a token's logits depends on how the work was cut."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circius.base.config import Window
from circius.kernels import native, ring_attention
from circius.model import RollingCache, Transformer
from tests.laws.test_ring_laws import cached_log_probs, ragged_schedules
from tests.models import random_tokens
from tests.packed import fully_packed_model, packable_config

needs_native = pytest.mark.skipif(not ring_attention.is_fast(), reason="the native kernels were not built here")

CACHE_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int8)


def in_chunks(
    model: Transformer, tokens: torch.Tensor, chunks: list[int], dtype: torch.dtype, extra_slots: int = 0
) -> torch.Tensor:
    """The logits of `tokens`, read in chunks of these sizes, the last of them as often as it takes."""
    cache = RollingCache(model.config, [len(tokens)], dtype=dtype, device="cpu", extra_slots=extra_slots)
    parts, begin = [], 0
    with torch.inference_mode():
        while begin < len(tokens):
            size = chunks.pop(0) if len(chunks) > 1 else chunks[0]
            part = tokens[begin : begin + size]
            parts.append(model(part, [len(part)], cache=cache))
            begin += len(part)
    return torch.cat(parts)


@needs_native
@pytest.mark.quick
@settings(max_examples=30, deadline=None)
@given(
    window=st.sampled_from([None, 5, 64, 70, (7, None)]),
    chunks=st.lists(st.integers(1, 90), min_size=1, max_size=6),
    dtype=st.sampled_from(CACHE_DTYPES),
    extra_slots=st.integers(0, 9),
)
def test_chunks_and_ring_size_do_not_change_a_bit(
    window: Window | tuple[Window, ...], chunks: list[int], dtype: torch.dtype, extra_slots: int
) -> None:
    model, tokens = fully_packed_model(packable_config(window=window)), random_tokens(150)
    whole = in_chunks(model, tokens, [150], dtype)
    assert torch.equal(in_chunks(model, tokens, chunks, dtype, extra_slots), whole)


@needs_native
@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=2, max_size=5))
def test_neighbours_do_not_change_a_bit(lengths: list[int]) -> None:
    model = fully_packed_model(packable_config(window=9))
    tokens = random_tokens(sum(lengths))
    with torch.inference_mode():
        together = model(tokens, lengths).split(lengths)
        alone = [model(part, [len(part)]) for part in tokens.split(lengths)]
    assert all(torch.equal(ours, own) for ours, own in zip(together, alone, strict=True))


@needs_native
@settings(max_examples=40, deadline=None)
@given(window=st.sampled_from([None, 5, (5, None)]), schedule=ragged_schedules())
def test_rows_of_a_cache_in_any_company_do_not_change_a_bit(
    window: Window | tuple[Window, ...], schedule: tuple[list[int], list[tuple[list[int], list[int]]]]
) -> None:
    """Random subsets of the rows take chunks of random length; single tokens and long chunks share a forward."""
    model, (lengths, turns) = fully_packed_model(packable_config(window=window)), schedule
    sequences = [random_tokens(n, seed=row) for row, n in enumerate(lengths)]
    with torch.inference_mode():
        found = cached_log_probs(model, sequences, turns)
    for sequence, ours in zip(sequences, found, strict=True):
        assert torch.equal(ours, in_chunks(model, sequence, [len(sequence)], torch.float32).log_softmax(-1))


@settings(max_examples=10, deadline=None)
@given(window=st.sampled_from([None, 5]), chunk=st.integers(1, 40))
def test_on_torch_alone_chunks_change_rounding_only(window: Window, chunk: int) -> None:
    model, tokens = fully_packed_model(packable_config(window=window)), random_tokens(40)
    with native.disabled():
        whole = in_chunks(model, tokens, [40], torch.float32)
        torch.testing.assert_close(in_chunks(model, tokens, [chunk], torch.float32), whole, atol=1e-4, rtol=0)


@needs_native
@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_threads_do_not_change_a_bit(n_threads: int) -> None:
    model, tokens = fully_packed_model(packable_config()), random_tokens(70)
    expected = in_chunks(model, tokens, [70], torch.float16)
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        assert torch.equal(in_chunks(model, tokens, [20, 1], torch.float16), expected)
    finally:
        torch.set_num_threads(before)
