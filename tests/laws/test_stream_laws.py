"""Laws of the stream: it may be stopped anywhere, walked by any number of processes, and packing changes no loss."""

from collections import Counter
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circius.model import Transformer
from circius.train.batch import IGNORED, Batch
from circius.train.example import Example
from circius.train.loss import summed_loss
from circius.train.packing import each_once
from circius.train.stream import Stream
from tests.models import random_model, tiny_config
from tests.unit.train.listed import Listed

BATCH_TOKENS = 24
VOCAB = 61

lengths = st.lists(st.integers(1, BATCH_TOKENS), min_size=1, max_size=12)


@st.composite
def streams(draw: st.DrawFn) -> tuple[Stream, Stream]:
    """Two streams of the same data."""
    sources = [Listed(f"s{number}", draw(lengths), number=number) for number in range(draw(st.integers(1, 3)))]
    weights = draw(st.none() | st.lists(st.floats(0.1, 10), min_size=len(sources), max_size=len(sources)))
    seed = draw(st.integers(0, 1 << 40))
    one, other = (Stream(sources, weights=weights, batch_tokens=BATCH_TOKENS, seed=seed) for _ in range(2))
    return one, other


def same(ours: list[Batch], theirs: list[Batch]) -> bool:
    return len(ours) == len(theirs) and all(
        one.lengths == other.lengths
        and torch.equal(one.tokens, other.tokens)
        and torch.equal(one.targets, other.targets)
        for one, other in zip(ours, theirs, strict=True)
    )


@settings(max_examples=60, deadline=None)
@given(pair=streams(), n_before=st.integers(0, 20), n_after=st.integers(1, 20))
def test_a_restored_stream_goes_on_as_if_never_stopped(
    pair: tuple[Stream, Stream], n_before: int, n_after: int
) -> None:
    stream, other = pair
    stream.next(n_before)
    other.restore(stream.state())
    assert same(stream.next(n_after), other.next(n_after))
    assert stream.state() == other.state()


@settings(max_examples=60, deadline=None)
@given(pair=streams(), n_processes=st.integers(1, 4), n_each=st.integers(1, 4))
def test_the_shares_of_all_processes_are_the_whole(pair: tuple[Stream, Stream], n_processes: int, n_each: int) -> None:
    whole, walked = pair
    n = n_processes * n_each
    for _ in range(3):
        everything = whole.next(n)
        before = walked.state()
        shares = []
        for rank in range(n_processes):
            walked.restore(before)
            shares.append(walked.next(n, range(rank, n, n_processes)))
        assert same(everything, [shares[number % n_processes][number // n_processes] for number in range(n)])
        assert walked.state() == whole.state()


@settings(max_examples=60, deadline=None)
@given(pair=streams(), steps=st.lists(st.integers(1, 5), max_size=6))
def test_how_many_batches_are_taken_at_once_changes_nothing(pair: tuple[Stream, Stream], steps: list[int]) -> None:
    stream, other = pair
    assert same([batch for n in steps for batch in stream.next(n)], other.next(sum(steps)))


@settings(max_examples=60, deadline=None)
@given(pair=streams(), n=st.integers(1, 40))
def test_batches_hold_whole_examples_and_are_as_full_as_next_fit_makes_them(
    pair: tuple[Stream, Stream], n: int
) -> None:
    batches = pair[0].next(n)
    for batch in batches:
        assert 0 < sum(batch.lengths) == len(batch.tokens) <= BATCH_TOKENS
        for part in batch.tokens.split(batch.lengths):
            assert len(part.unique()) == 1  # of one example
    for before, after in pairwise(batches):
        assert sum(before.lengths) + after.lengths[0] > BATCH_TOKENS


@settings(max_examples=60, deadline=None)
@given(pair=streams(), n=st.integers(1, 60))
def test_every_example_comes_once_before_any_comes_again(pair: tuple[Stream, Stream], n: int) -> None:
    stream, _ = pair
    drawn: dict[int, list[int]] = {}
    for batch in stream.next(n):
        for part in batch.tokens.split(batch.lengths):
            source, index = divmod(int(part[0]), 1000)
            drawn.setdefault(source, []).append(index)
    for number, described in enumerate(stream.state()["sources"]):
        order, n_examples = drawn.get(number, []), described["n_examples"]
        for epoch in range(0, len(order) - n_examples + 1, n_examples):
            assert sorted(order[epoch : epoch + n_examples]) == list(range(n_examples))
        rest = Counter(order[len(order) // n_examples * n_examples :])
        assert max(rest.values(), default=0) <= 1
        assert (described["epoch"], described["place"]) == divmod(len(order), n_examples)


@settings(max_examples=60, deadline=None)
@given(pair=streams(), n=st.integers(1, 60))
def test_no_source_is_an_example_ahead_of_its_share(pair: tuple[Stream, Stream], n: int) -> None:
    stream, _ = pair
    stream.next(n)
    state = stream.state()
    behind = [
        one["share"] * state["n_drawn"] - (one["epoch"] * one["n_examples"] + one["place"]) for one in state["sources"]
    ]
    assert all(-1 < one < len(behind) for one in behind)


@st.composite
def examples(draw: st.DrawFn) -> list[Example]:
    made = []
    for _ in range(draw(st.integers(1, 4))):
        n = draw(st.integers(1, 9))
        ids = draw(st.lists(st.integers(0, VOCAB - 1), min_size=n, max_size=n))
        learnt = draw(st.lists(st.booleans(), min_size=n, max_size=n))
        made.append(Example(np.array(ids), np.array(learnt)))
    return made


@cache
def model_of(window: int | None) -> Transformer:
    return random_model(tiny_config(window=window)).double()


def loss(model: Transformer, batch: Batch) -> float:
    if not batch.n_learnt:
        return 0.0
    hidden = model.hidden(batch.tokens, batch.lengths)
    return float(summed_loss(hidden, model.lm_head.weight, batch.targets).total)


@settings(max_examples=40, deadline=None)
@given(found=examples(), window=st.none() | st.integers(1, 12))
@torch.no_grad()
def test_a_packed_loss_is_the_sum_of_separate_ones(found: list[Example], window: int | None) -> None:
    model = model_of(window)
    separate = sum(loss(model, Batch.of([example])) for example in found)
    torch.testing.assert_close(loss(model, Batch.of(found)), separate, rtol=1e-6, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(found=examples(), window=st.integers(1, 6), data=st.data())
@torch.no_grad()
def test_nothing_leaks_from_other_examples_or_from_outside_the_window(
    found: list[Example], window: int, data: st.DataObject
) -> None:
    """Another id in one place moves only what is behind it in its own example, and at most layers x (window - 1) on."""
    model = model_of(window)
    batch = Batch.of(found)
    place = data.draw(st.integers(0, len(batch.tokens) - 1))
    changed = batch.tokens.clone()
    changed[place] = (changed[place] + 1 + data.draw(st.integers(0, VOCAB - 2))) % VOCAB
    moved = (model(batch.tokens, batch.lengths) - model(changed, batch.lengths)).abs().amax(dim=1) > 0
    begins = [sum(batch.lengths[:number]) for number in range(len(batch.lengths))]
    end = min(begin + length for begin, length in zip(begins, batch.lengths, strict=True) if begin + length > place)
    reach = min(end, place + model.config.n_layers * (window - 1) + 1)
    assert moved[place]
    assert not moved[:place].any()
    assert not moved[reach:].any()


@settings(max_examples=40, deadline=None)
@given(found=examples())
def test_a_target_is_the_next_learnt_id_of_its_own_example(found: list[Example]) -> None:
    batch = Batch.of(found)
    expected: list[int] = []
    for example in found:
        later = zip(example.ids[1:].tolist(), example.learnt[1:].tolist(), strict=True)
        expected += [token if learnt else IGNORED for token, learnt in later] + [IGNORED]
    assert batch.targets.tolist() == expected
    assert batch.n_learnt == sum(example.n_learnt for example in found)


@settings(max_examples=40, deadline=None)
@given(n_tokens=lengths)
def test_an_evaluation_reads_what_a_stream_of_one_epoch_reads(n_tokens: list[int]) -> None:
    source = Listed("s", n_tokens)
    read = [int(part[0]) for batch in each_once(source, BATCH_TOKENS) for part in batch.tokens.split(batch.lengths)]
    assert read == list(range(len(source)))
