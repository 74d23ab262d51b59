"""The short list and the draw on the CPU, as functions of scores; beside the plain ways to get the same."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circius.engine.device_sampler import cut_min_p, cut_top_k, cut_top_p
from circius.engine.host_sampler import Scores, draw, shortlist
from circius.engine.params import SamplingParams


def _scores(vocab: int, seed: int = 0, spread: float = 3.0) -> Scores:
    scores = (np.random.default_rng(seed).standard_normal(vocab) * spread).astype(np.float32)
    return scores - scores.max()


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 1000),
    spread=st.sampled_from([0.0, 0.01, 1.0, 3.0, 30.0]),
    vocab=st.sampled_from([1, 50, 5000]),
    top_p=st.one_of(st.just(1.0), st.floats(1e-6, 0.9999)),
    top_k=st.sampled_from([0, 1, 7, 400]),
    min_p=st.one_of(st.just(0.0), st.floats(1e-6, 1.0)),
)
def test_the_short_list_is_what_all_cuts_leave(
    seed: int, spread: float, vocab: int, top_p: float, top_k: int, min_p: float
) -> None:
    scores = _scores(vocab, seed, spread)
    whole = cut_min_p(torch.from_numpy(scores)[None], torch.tensor([[min_p]]))
    if 0 < top_k < vocab:
        whole = cut_top_k(whole, torch.tensor([[top_k]]), largest=top_k)
    # In float64, with a little room: where sums fall on the border the last bits decide.
    fewest, most = (
        set(cut_top_p(whole.double(), torch.tensor([[p]]).double()).isfinite()[0].nonzero()[:, 0].tolist())
        for p in (top_p - 1e-6, min(1.0, top_p + 1e-6))
    )
    params = SamplingParams(top_p=top_p, top_k=top_k, min_p=min_p)
    if (top_p, min_p) == (1.0, 0.0) and not 0 < top_k < vocab:
        return
    tokens, own = shortlist(scores, params)
    kept = tokens.tolist()
    assert own.tolist() == scores[tokens].tolist()
    assert kept == sorted(kept)
    assert fewest <= set(kept) <= most


@settings(max_examples=200, deadline=None)
@given(
    uniform=st.one_of(st.just(0.0), st.just(math.nextafter(1, 0)), st.floats(0, 1, exclude_max=True)),
    seed=st.integers(0, 1000),
    vocab=st.sampled_from([1, 7, 256, 257, 2000]),
    n_possible=st.integers(1, 2000),
)
def test_a_draw_is_the_inverse_of_the_distribution(uniform: float, seed: int, vocab: int, n_possible: int) -> None:
    scores = _scores(vocab, seed)
    scores[np.random.default_rng(seed).permutation(vocab)[n_possible:]] = -math.inf
    token = draw(scores, SamplingParams(), uniform)
    cumulative = np.exp(scores.astype(np.float64)).cumsum()
    assert scores[token] > -math.inf
    assert cumulative[token] >= uniform * cumulative[-1] * (1 - 1e-6)
    assert token == 0 or cumulative[token - 1] <= uniform * cumulative[-1] * (1 + 1e-6)


@pytest.mark.parametrize(("uniform", "token"), [(0.0, 1), (math.nextafter(1, 0), 2)])
def test_the_smallest_and_the_largest_number_give_the_first_and_the_last_possible_token(
    uniform: float, token: int
) -> None:
    scores = np.array([-math.inf, 0, -1, -math.inf], np.float32)
    assert draw(scores, SamplingParams(), uniform) == token
    assert draw(scores, SamplingParams(top_p=0.999), uniform) == token
