"""The cuts and the draw in batches, as functions of scores."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from circius.engine.device_sampler import cut_min_p, cut_top_k, cut_top_p, invert

VOCAB = 50


def _scores(rows: int, seed: int = 0, vocab: int = VOCAB) -> Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * 3


@given(seed=st.integers(0, 10_000), top_p=st.floats(0.01, 0.999))
def test_top_p_keeps_the_smallest_set_that_holds_p(seed: int, top_p: float) -> None:
    scores = _scores(1, seed)
    kept = cut_top_p(scores, torch.tensor([[top_p]])).isfinite()[0]
    probabilities = scores.double().softmax(-1)[0]
    mass = float(probabilities[kept].sum())
    least = float(probabilities[kept].min())
    assert mass >= top_p - 1e-5
    assert mass - least < top_p + 1e-5
    assert least >= float(probabilities[~kept].max()) if not kept.all() else True


def test_tokens_that_tie_at_the_border_of_top_p_all_stay() -> None:
    scores = torch.tensor([[2.0, 1.0, 1.0, 1.0, 0.0]])
    assert cut_top_p(scores, torch.tensor([[0.6]])).isfinite().tolist() == [[True, True, True, True, False]]


@given(seed=st.integers(0, 10_000), k=st.integers(1, VOCAB))
def test_top_k_keeps_the_k_likeliest(seed: int, k: int) -> None:
    scores = _scores(1, seed)
    kept = cut_top_k(scores, torch.tensor([[k]]), largest=k).isfinite()[0]
    assert set(kept.nonzero()[:, 0].tolist()) == set(scores[0].topk(k).indices.tolist())


@given(seed=st.integers(0, 10_000), min_p=st.floats(0.001, 1))
def test_min_p_is_a_fraction_of_the_likeliest(seed: int, min_p: float) -> None:
    scores = _scores(1, seed)
    kept = cut_min_p(scores, torch.tensor([[min_p]])).isfinite()[0]
    ratios = scores.double().softmax(-1)[0] / scores.double().softmax(-1).max()
    assert bool((ratios[kept] >= min_p * (1 - 1e-5)).all())
    assert bool((ratios[~kept] <= min_p * (1 + 1e-5)).all())


@given(uniform=st.floats(0, 1, exclude_max=True), seed=st.integers(0, 1000))
def test_a_draw_never_lands_on_an_impossible_token(uniform: float, seed: int) -> None:
    scores = _scores(1, seed)
    scores[0, scores[0].argsort()[: VOCAB - 3]] = -math.inf
    scores[0, -1] = -math.inf
    token = invert(scores, torch.tensor([uniform], dtype=torch.float64))
    assert scores[0, token].isfinite()


@pytest.mark.parametrize("flipped", [False, True])
def test_the_smallest_and_the_largest_number_give_the_first_and_the_last_possible_token(flipped: bool) -> None:
    scores = torch.tensor([[0.0, 1.0, -math.inf]])
    uniform, token = (0.0, 1) if flipped else (math.nextafter(1, 0), 1)
    assert invert(scores.flip(-1) if flipped else scores, torch.tensor([uniform], dtype=torch.float64)).tolist() == [
        token
    ]
