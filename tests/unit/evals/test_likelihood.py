"""Likelihoods with shared beginnings equal those of whole texts that are computed alone, without any cache."""

import copy
import math
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circius.base.config import Window
from circius.base.errors import CirciusError
from circius.evals.item import Passage
from circius.evals.likelihood import Likelihood, LikelihoodReader
from circius.evals.pairs import Pair
from circius.model import Transformer
from tests.models import random_model, tiny_config

VOCAB = 61
CLOSE = 1e-5


@cache
def _model(window: Window = None) -> Transformer:
    return random_model(tiny_config(window=window, vocab_size=VOCAB)).requires_grad_(False)


def _alone(model: Transformer, pair: Pair) -> Likelihood:
    """One forward over context and continuation, nothing shared, nothing cached."""
    ids = torch.tensor([*pair.context, *pair.continuation])
    logprobs = model(ids, [len(ids)]).log_softmax(-1)[len(pair.context) - 1 : -1]
    own = torch.tensor(pair.continuation)
    return Likelihood(
        float(logprobs[torch.arange(len(own)), own].double().sum()), bool((logprobs.argmax(-1) == own).all())
    )


def _agree(model: Transformer, pairs: list[Pair], *, chunk_size: int = 32) -> LikelihoodReader:
    reader = LikelihoodReader(model, chunk_size=chunk_size)
    for own, pair in zip(reader.pairs(pairs), pairs, strict=True):
        alone = _alone(model, pair)
        assert math.isclose(own.logprob, alone.logprob, rel_tol=CLOSE, abs_tol=CLOSE), pair
        assert own.is_greedy == alone.is_greedy
    return reader


def _ids(*tokens: int) -> tuple[int, ...]:
    return tuple(token % VOCAB for token in tokens)


def test_choices_of_one_context_cost_the_context_once() -> None:
    context = _ids(*range(100))
    pairs = [Pair(context, _ids(*range(start, start + 5))) for start in (3, 17, 29, 40)]
    reader = _agree(_model(), pairs)
    assert reader.n_forwarded == 100 + 4 * 4


def test_single_tokens_need_no_forward_of_their_own() -> None:
    context = _ids(*range(70))
    reader = _agree(_model(), [Pair(context, (letter,)) for letter in (5, 6, 7, 8)])
    assert reader.n_forwarded == 70


def test_a_few_shot_beginning_is_read_once() -> None:
    shots = _ids(*(i * i for i in range(64 * 3)))
    pairs = [Pair(shots + _ids(*range(own, own + 20)), (letter,)) for own in range(12) for letter in (1, 2)]
    reader = _agree(_model(), pairs)
    assert reader.n_forwarded == 64 * 3 + 12 * 20


def test_beginnings_that_build_on_each_other_are_read_once_each() -> None:
    header, one, two = (_ids(*(i * i + a for i in range(64))) for a in (0, 1, 2))
    contexts = [header + part + (own,) for part in (one, two) for own in range(4)] + [(*header, 9)]
    reader = _agree(_model(), [Pair(context, (3, 4)) for context in contexts], chunk_size=64)
    assert reader.n_forwarded <= 3 * 64 + 9 + 9 + 64  # a beginning may be needed by two batches


@pytest.mark.parametrize("window", [None, 1, 7, 64, 65, 100, (7, None)])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 128, 200])
def test_every_window_and_length_around_pages(window: Window, length: int) -> None:
    context = _ids(*(i * 7 + i // 5 for i in range(length)))
    _agree(_model(window), [Pair(context, _ids(*range(n, 2 * n + 1))) for n in range(5)])


@pytest.mark.parametrize("window", [None, 7, 65])
def test_without_the_native_kernels_too(window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: pages are gathered, and what they hold beside a text's own tokens is never seen."""
    monkeypatch.setattr("circius.model.paged.attends_natively", lambda query, key, value: False)
    shots = _ids(*(i * i for i in range(130)))
    pairs = [Pair(shots + _ids(*range(own, own + 20)), _ids(*range(n, n + 4))) for own in range(5) for n in (1, 2)]
    _agree(_model(window), [*pairs, Pair((3,), (4, 5, 6))])


def test_a_continuation_longer_than_a_chunk_and_than_pages() -> None:
    _agree(_model(40), [Pair((1, 2, 3), _ids(*range(150))), Pair((1, 2, 3), _ids(*range(9, 90)))], chunk_size=16)


@settings(max_examples=40)
@given(
    st.lists(
        st.builds(
            Pair,
            st.tuples(st.sampled_from([0, 64, 65, 128]), st.lists(st.integers(0, 2), min_size=1, max_size=5)).map(
                lambda pair: (1,) * pair[0] + tuple(pair[1])
            ),
            st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple),
        ),
        max_size=12,
    ),
    st.sampled_from([None, 5, 80]),
)
def test_any_pairs_that_share_beginnings(pairs: list[Pair], window: Window) -> None:
    _agree(_model(window), pairs)


def test_the_same_call_gives_the_same_bits_whatever_was_asked_before() -> None:
    pairs = [Pair(_ids(*range(own, own + 90)), _ids(*range(own, own + 6))) for own in range(30)]
    fresh = LikelihoodReader(_model(), chunk_size=32).pairs(pairs)
    used = LikelihoodReader(_model(), chunk_size=32)
    used.pairs(pairs[5:25])
    used.pairs([Pair(_ids(*range(900)), (1, 2))])
    assert used.pairs(pairs) == fresh


def test_passages_are_scored_behind_what_is_known() -> None:
    model = _model(20)
    ids = _ids(*(i * i for i in range(150)))
    answer = LikelihoodReader(model, chunk_size=64).passages([Passage(ids=ids, n_known=75), Passage(ids=ids)])
    logprobs = model(torch.tensor(ids), [150]).log_softmax(-1)[torch.arange(149), torch.tensor(ids[1:])].double()
    for own, known in zip(answer, (75, 1), strict=True):
        assert own.n_tokens == 150 - known
        assert own.logprob == pytest.approx(float(logprobs[known - 1 :].sum()), rel=1e-6)
        assert own.squares == pytest.approx(float(logprobs[known - 1 :].square().sum()), rel=1e-6)


def test_progress_counts_every_pair_once() -> None:
    heard: list[int] = []
    pairs = [Pair(_ids(*range(own, own + 50)), (1, 2)) for own in range(10)]
    LikelihoodReader(_model(), chunk_size=32).pairs([*pairs, *pairs], heard.append)
    assert heard[-1] == 10
    assert heard == sorted(set(heard))


def test_numbers_that_are_none_are_an_error() -> None:
    model = copy.deepcopy(_model())
    model.model.norm.weight.fill_(math.inf)
    with pytest.raises(CirciusError, match="not finite"):
        LikelihoodReader(model, chunk_size=32).pairs([Pair((1, 2), (3,))])
