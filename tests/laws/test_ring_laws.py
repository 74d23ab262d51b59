"""The rolling buffer, pre-fill and chunking, as laws: whatever the window, the chunks, the lengths and the neighbours,
the log-probabilities are those of full banded attention."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from circius.base.errors import CacheFullError
from circius.model import RollingCache, Transformer
from circius.model.window import visible
from tests.models import random_model, random_tokens, tiny_config

WINDOWS = st.one_of(
    st.none(), st.integers(1, 20), st.tuples(st.integers(1, 9), st.one_of(st.none(), st.integers(1, 9)))
)


def dense_log_probs(model: Transformer, tokens: Tensor) -> Tensor:
    """The same weights by the plainest attention there is: one T x T mask, K and V expanded."""
    config = model.config
    places = torch.arange(len(tokens))

    class Dense:
        positions = places

        def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            group = config.n_heads // config.n_kv_heads
            key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
            scores = torch.einsum("qhd,khd->hqk", query, key) / config.head_dim**0.5
            seen = visible(places[:, None], places[None, :], config.windows[layer])
            return torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, float("-inf")).softmax(-1), value)

    return model._logits(model._run_blocks(tokens, Dense())).log_softmax(-1)


def cached_log_probs(
    model: Transformer, sequences: Sequence[Tensor], turns: Sequence[tuple[Sequence[int], Sequence[int]]]
) -> list[Tensor]:
    """Each turn gives some rows some tokens; returns every row's log-probabilities, in the order of its tokens."""
    cache = RollingCache(model.config, [len(s) for s in sequences], dtype=torch.float32, device="cpu")
    found: list[list[Tensor]] = [[] for _ in sequences]
    for rows, lengths in turns:
        parts = [sequences[r][cache.lengths[r] : cache.lengths[r] + n] for r, n in zip(rows, lengths, strict=True)]
        logits = model(torch.cat(parts), lengths, cache=cache, rows=rows)
        for row, out in zip(rows, logits.split(list(lengths)), strict=True):
            found[row].append(out.log_softmax(-1))
    assert cache.lengths == [len(s) for s in sequences]
    return [torch.cat(parts) for parts in found]


@st.composite
def ragged_schedules(draw: st.DrawFn) -> tuple[list[int], list[tuple[list[int], list[int]]]]:
    """Lengths of some rows, and an order in which random subsets of them take chunks of random length to the end."""
    lengths = draw(st.lists(st.integers(1, 70), min_size=1, max_size=4))
    left, turns = list(lengths), []
    while any(left):
        alive = [row for row, n in enumerate(left) if n]
        rows = sorted(draw(st.sets(st.sampled_from(alive), min_size=1)))
        chunks = [min(left[row], draw(st.sampled_from([1, 1, 2, 3, 8, 30, 70]))) for row in rows]
        for row, n in zip(rows, chunks, strict=True):
            left[row] -= n
        turns.append((rows, chunks))
    return lengths, turns


@pytest.mark.quick
@settings(max_examples=120, deadline=None)
@given(window=WINDOWS, n_kv_heads=st.sampled_from([1, 2, 4]), schedule=ragged_schedules())
def test_ring_equals_full_banded_attention(
    window: int | tuple[int, int | None] | None,
    n_kv_heads: int,
    schedule: tuple[list[int], list[tuple[list[int], list[int]]]],
) -> None:
    model = random_model(tiny_config(window=window, n_kv_heads=n_kv_heads))
    lengths, turns = schedule
    sequences = [random_tokens(n, seed=row) for row, n in enumerate(lengths)]
    with torch.inference_mode():
        found = cached_log_probs(model, sequences, turns)
        fresh = model(torch.cat(sequences), lengths).log_softmax(-1).split(lengths)
        for sequence, ours, alone in zip(sequences, found, fresh, strict=True):
            expected = dense_log_probs(model, sequence)
            torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
            torch.testing.assert_close(alone, expected, atol=1e-5, rtol=0)


@settings(max_examples=40, deadline=None)
@given(window=st.integers(1, 12), chunk=st.integers(1, 90), length=st.integers(1, 90))
def test_chunk_size_never_changes_log_probabilities(window: int, chunk: int, length: int) -> None:
    """Chunks longer than the window, prompts longer than two windows, every wrap."""
    model = random_model(tiny_config(window=window))
    tokens = random_tokens(length)
    turns = [([0], [min(chunk, length - begin)]) for begin in range(0, length, chunk)]
    with torch.inference_mode():
        whole = cached_log_probs(model, [tokens], [([0], [length])])[0]
        parts = cached_log_probs(model, [tokens], turns)[0]
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)


def test_a_long_sequence_in_many_blocks_equals_dense_attention() -> None:
    """Longer than a block of queries (128), so that block borders, shared masks and the ring's wrap all take part."""
    for window in (40, 300, None):
        model = random_model(tiny_config(window=window))
        tokens = random_tokens(700)
        with torch.inference_mode():
            expected = dense_log_probs(model, tokens)
            torch.testing.assert_close(model(tokens, [700]).log_softmax(-1), expected, atol=1e-5, rtol=0)
            for chunk in (350, 512):
                turns = [([0], [min(chunk, 700 - begin)]) for begin in range(0, 700, chunk)]
                found = cached_log_probs(model, [tokens], turns)[0]
                torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@settings(max_examples=30, deadline=None)
@given(window=st.one_of(st.none(), st.integers(1, 6)), lengths=st.lists(st.integers(1, 30), min_size=2, max_size=4))
def test_without_a_cache_rows_never_see_each_other_nor_the_future(window: int | None, lengths: list[int]) -> None:
    """Gradients tell exactly what a logit depends on: its own row, itself and before, inside k * (W - 1) + 1 tokens."""
    config = tiny_config(window=window)
    model = random_model(config)
    embedded = model.model.embed_tokens(random_tokens(sum(lengths))).detach().requires_grad_()
    model.model.embed_tokens.register_forward_hook(lambda *_: embedded)
    logits = model(random_tokens(sum(lengths)), lengths)
    row = len(lengths) - 1
    begin, end = sum(lengths[:row]), sum(lengths)
    query = begin + (end - begin) // 2
    logits[query].square().sum().backward()
    touched = embedded.grad.abs().sum(-1).nonzero().flatten().tolist()
    reach = query - begin if window is None else min(query - begin, config.n_layers * (window - 1))
    assert touched == list(range(query - reach, query + 1))


def _fill(cache: RollingCache, model: Transformer, tokens: Tensor, row: int = 0) -> Tensor:
    return model(tokens, [len(tokens)], cache=cache, rows=[row])


@settings(max_examples=60, deadline=None)
@given(
    window=st.one_of(st.none(), st.integers(1, 12)),
    length=st.integers(1, 40),
    back=st.integers(0, 40),
    extra=st.integers(1, 20),
)
def test_truncate_forgets_exactly_or_refuses(window: int | None, length: int, back: int, extra: int) -> None:
    """What a truncated row says next equals a row that never saw the forgotten tokens; refused only when it must be."""
    model = random_model(tiny_config(window=window))
    kept = max(0, length - back)
    tokens, other = random_tokens(length), random_tokens(extra, seed=1)
    cache = RollingCache(model.config, [100], dtype=torch.float32, device="cpu")
    with torch.inference_mode():
        _fill(cache, model, tokens)
        possible = window is None or length <= window or kept in (0, length - 1, length)
        assert cache.can_truncate(0, kept) == possible
        if not possible:
            with pytest.raises(CacheFullError, match="go back"):
                cache.truncate(0, kept)
            return
        cache.truncate(0, kept)
        again = _fill(cache, model, other)
        expected = model(torch.cat((tokens[:kept], other)), [kept + extra])[kept:]
    torch.testing.assert_close(again, expected, atol=1e-5, rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    window=st.one_of(st.none(), st.integers(1, 12), st.just(100)), first=st.integers(1, 80), more=st.integers(1, 200)
)
def test_reserve_and_copy_row_keep_what_is_visible(window: int | None, first: int, more: int) -> None:
    model = random_model(tiny_config(window=window))
    tokens, rest = random_tokens(first), random_tokens(more, seed=1)
    cache = RollingCache(model.config, [first, 1, first], dtype=torch.float32, device="cpu")
    with torch.inference_mode():
        _fill(cache, model, tokens)
        for row in range(3):
            cache.reserve(row, first + more)
        cache.copy_row(0, 2)
        expected = model(torch.cat((tokens, rest)), [first + more])[first:]
        for row in (0, 2):
            found = torch.cat([_fill(cache, model, part, row) for part in rest.split(7)])
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert cache.lengths == [first + more, 0, first + more]


def test_a_stream_runs_on_at_constant_memory_and_stays_exact() -> None:
    model = random_model(tiny_config(window=6))
    cache = RollingCache(model.config, [6], dtype=torch.float32, device="cpu")
    before = cache.n_bytes
    tokens = random_tokens(2000)
    with torch.inference_mode():
        found = torch.cat([_fill(cache, model, chunk) for chunk in tokens.split(37)])
        torch.testing.assert_close(found, model(tokens, [2000]), atol=2e-5, rtol=1e-5)
    assert cache.n_bytes == before == 2 * 2 * 6 * 2 * 8 * 4  # keys and values, layers, slots, kv heads, head_dim, fp32
