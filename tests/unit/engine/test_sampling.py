"""The sampler: its distribution, its stages, its seeds."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from circius.engine.params import SamplingParams
from circius.engine.sampling import BAD_ROW, Sampler, SamplerRow, cut_min_p, cut_top_k, cut_top_p, invert

VOCAB = 50


def _logits(rows: int, seed: int = 0, vocab: int = VOCAB) -> Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * 3


def _sampler(*params: SamplingParams, prompt: tuple[int, ...] = (1,), vocab: int = VOCAB) -> Sampler:
    return Sampler([SamplerRow(p, prompt) for p in params], vocab_size=vocab, device="cpu")


def test_greedy_is_the_argmax() -> None:
    logits = _logits(4)
    assert _sampler(*[SamplingParams.greedy()] * 4)(logits).tolist() == logits.argmax(-1).tolist()


def test_greedy_rows_stay_exact_beside_random_ones() -> None:
    logits = _logits(3)
    tokens = _sampler(SamplingParams.greedy(), SamplingParams(seed=1, top_p=0.5), SamplingParams.greedy())(logits)
    assert tokens[[0, 2]].tolist() == logits.argmax(-1)[[0, 2]].tolist()


def test_logits_are_not_changed() -> None:
    logits = _logits(1)
    before = logits.clone()
    params = SamplingParams(logit_bias={3: 5.0}, repetition_penalty=2.0, top_k=3, top_p=0.5, min_p=0.1, min_tokens=2)
    Sampler([SamplerRow(params, [1], frozenset({2}))], vocab_size=VOCAB, device="cpu")(logits)
    assert torch.equal(logits, before)


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 1.0},
        {"temperature": 0.6},
        {"temperature": 2.0, "top_k": 4},
        {"temperature": 1.5, "top_p": 0.8},
        {"temperature": 1.5, "min_p": 0.1},
    ],
)
def test_draws_follow_the_distribution(params: dict[str, float]) -> None:
    vocab, n_rows, n_steps = 8, 1000, 20
    n = n_rows * n_steps
    logits = _logits(1, seed=3, vocab=vocab)
    rows = [SamplingParams(seed=seed, **params) for seed in range(n_rows)]  # type: ignore[arg-type]
    given, sampler = rows[0], _sampler(*rows, vocab=vocab)
    drawn = torch.cat([sampler(logits.expand(n_rows, -1)) for _ in range(n_steps)])
    scores = logits / given.temperature
    if given.top_k:
        scores = cut_top_k(scores, torch.tensor([[given.top_k]]), largest=given.top_k)
    scores = cut_min_p(scores, torch.tensor([[given.min_p]]))
    expected = cut_top_p(scores, torch.tensor([[given.top_p]])).softmax(-1)[0] * n
    counts = torch.bincount(drawn, minlength=vocab).double()
    possible = expected > 0
    assert counts[~possible].sum() == 0
    chi_square = float(((counts - expected) ** 2 / expected)[possible].sum())
    assert chi_square < 24.3  # the 99.9th percentile for 7 degrees of freedom


@given(seed=st.integers(0, 10_000), top_p=st.floats(0.01, 0.999))
def test_top_p_keeps_the_smallest_set_that_holds_p(seed: int, top_p: float) -> None:
    scores = _logits(1, seed)
    kept = cut_top_p(scores, torch.tensor([[top_p]])).isfinite()[0]
    probabilities = scores.double().softmax(-1)[0]
    mass = float(probabilities[kept].sum())
    least = float(probabilities[kept].min())
    assert mass >= top_p - 1e-5
    assert mass - least < top_p + 1e-5
    assert least >= float(probabilities[~kept].max()) if not kept.all() else True


@pytest.mark.parametrize("spread", [0.01, 3.0, 10.0])
def test_top_p_over_a_large_vocabulary_equals_a_whole_sort(spread: float) -> None:
    scores = _logits(4, vocab=5000) / 3 * spread
    top_p = torch.tensor([[0.1], [0.9], [1.0], [0.99]])
    ordered = scores.double().softmax(-1).sort(-1, descending=True).values
    n_kept = [int((row.cumsum(-1) - row < p).sum()) for row, p in zip(ordered, top_p.double(), strict=True)]
    kept = cut_top_p(scores, top_p).isfinite().sum(-1).tolist()
    assert kept == pytest.approx(n_kept, rel=1e-3)
    assert kept[2] == 5000


def test_tokens_that_tie_at_the_border_of_top_p_all_stay() -> None:
    scores = torch.tensor([[2.0, 1.0, 1.0, 1.0, 0.0]])
    assert cut_top_p(scores, torch.tensor([[0.6]])).isfinite().tolist() == [[True, True, True, True, False]]


@given(seed=st.integers(0, 10_000), k=st.integers(1, VOCAB))
def test_top_k_keeps_the_k_likeliest(seed: int, k: int) -> None:
    scores = _logits(1, seed)
    kept = cut_top_k(scores, torch.tensor([[k]]), largest=k).isfinite()[0]
    assert set(kept.nonzero()[:, 0].tolist()) == set(scores[0].topk(k).indices.tolist())


@given(seed=st.integers(0, 10_000), min_p=st.floats(0.001, 1))
def test_min_p_is_a_fraction_of_the_likeliest(seed: int, min_p: float) -> None:
    scores = _logits(1, seed)
    kept = cut_min_p(scores, torch.tensor([[min_p]])).isfinite()[0]
    ratios = scores.double().softmax(-1)[0] / scores.double().softmax(-1).max()
    assert bool((ratios[kept] >= min_p * (1 - 1e-5)).all())
    assert bool((ratios[~kept] <= min_p * (1 + 1e-5)).all())


@given(seed=st.integers(0, 10_000))
def test_top_k_1_and_tiny_top_p_equal_the_argmax(seed: int) -> None:
    logits = _logits(3, seed)
    params = (
        SamplingParams(top_k=1, temperature=3, seed=seed),
        SamplingParams(top_p=1e-6, seed=seed),
        SamplingParams(temperature=1e-5, seed=seed),
    )
    assert _sampler(*params)(logits).tolist() == logits.argmax(-1).tolist()


@given(uniform=st.floats(0, 1, exclude_max=True), seed=st.integers(0, 1000))
def test_a_draw_never_lands_on_an_impossible_token(uniform: float, seed: int) -> None:
    scores = _logits(1, seed)
    scores[0, scores[0].argsort()[: VOCAB - 3]] = -math.inf
    scores[0, -1] = -math.inf
    token = invert(scores, torch.tensor([uniform], dtype=torch.float64))
    assert scores[0, token].isfinite()


def test_the_largest_uniform_number_gives_the_last_possible_token() -> None:
    scores = torch.tensor([[0.0, 1.0, -math.inf]])
    assert invert(scores, torch.tensor([math.nextafter(1, 0)], dtype=torch.float64)).tolist() == [1]
    assert invert(scores.flip(-1), torch.tensor([0.0], dtype=torch.float64)).tolist() == [1]


@settings(max_examples=20)
@given(seed=st.integers(0, 2**40), others=st.integers(1, 4))
def test_a_seeded_row_draws_the_same_alone_and_in_any_batch(seed: int, others: int) -> None:
    mine = SamplingParams(seed=seed, temperature=1.5, top_p=0.95)
    alone, batched = _sampler(mine), _sampler(*[SamplingParams(top_k=5)] * others, mine)
    for step in range(5):
        logits = _logits(1, step)
        together = torch.cat([_logits(others, 100 + step), logits])
        assert alone(logits).tolist() == batched(together)[-1:].tolist()


def test_rows_that_leave_do_not_disturb_the_others() -> None:
    params = [SamplingParams(seed=s, frequency_penalty=1.0, repetition_penalty=1.3) for s in range(3)]
    alone, batched = _sampler(params[2]), _sampler(*params)
    for step in range(6):
        logits = _logits(1, step)
        rows = 3 if step < 2 else 2
        if step == 2:
            batched.keep([1, 2])
        assert alone(logits).tolist() == batched(logits.expand(rows, -1))[-1:].tolist()


def test_the_answers_to_one_prompt_differ_and_the_first_is_that_of_n_1() -> None:
    params = SamplingParams(n=3, seed=5, temperature=2.0)
    rows = [SamplerRow(params, [1], answer=answer) for answer in range(3)]
    sampler = Sampler(rows, vocab_size=VOCAB, device="cpu")
    alone = _sampler(SamplingParams(seed=5, temperature=2.0))
    logits = [_logits(1, step) for step in range(20)]
    drawn = [sampler(x.expand(3, -1)).tolist() for x in logits]
    first, second, third = zip(*drawn, strict=True)
    assert list(first) == [alone(x).item() for x in logits]
    assert len({first, second, third}) == 3


def test_no_seed_means_a_fresh_one() -> None:
    logits = _logits(1)
    draws = [[_sampler(SamplingParams(temperature=5.0))(logits).item() for _ in range(30)] for _ in range(2)]
    assert draws[0] != draws[1]


def test_bias_moves_and_forbids() -> None:
    logits = _logits(2)
    best = int(logits[1].argmax())
    tokens = _sampler(
        SamplingParams.greedy(logit_bias={7: 1000.0}), SamplingParams.greedy(logit_bias={best: -math.inf})
    )(logits)
    assert tokens[0] == 7
    assert tokens[1] == logits[1].topk(2).indices[1]


def test_presence_and_frequency_follow_their_formula() -> None:
    logits = torch.tensor([[2.0, 1.9, 0.0]])
    frequency = _sampler(SamplingParams.greedy(frequency_penalty=0.06), prompt=(0,), vocab=3)
    # 2.00 0.06 less each time it was taken: 2.00, then 1.94, then 1.88 < 1.90, which after one use is 1.84.
    assert [frequency(logits).item() for _ in range(4)] == [0, 0, 1, 0]
    presence = _sampler(SamplingParams.greedy(presence_penalty=0.2), prompt=(0,), vocab=3)
    # 2.0, then 1.8 < 1.9, then 1.8 > 1.7, and no further loss with use.
    assert [presence(logits).item() for _ in range(4)] == [0, 1, 0, 0]


def test_end_tokens_are_not_drawn_before_min_tokens() -> None:
    logits = _logits(1)
    best = int(logits.argmax())
    row = SamplerRow(SamplingParams.greedy(min_tokens=2), [1], frozenset({best}))
    sampler = Sampler([row], vocab_size=VOCAB, device="cpu")
    assert [sampler(logits).item() == best for _ in range(4)] == [False, False, True, True]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_row_with_broken_logits_gives_no_token(bad: float) -> None:
    logits = _logits(2)
    logits[1, 4] = bad
    tokens = _sampler(SamplingParams.greedy(), SamplingParams(presence_penalty=1, top_p=0.5, top_k=9))(logits)
    assert tokens[1] == BAD_ROW
    assert tokens[0] != BAD_ROW


def test_a_row_in_which_all_is_forbidden_gives_no_token() -> None:
    params = SamplingParams(logit_bias=dict.fromkeys(range(VOCAB), -math.inf))
    assert _sampler(params)(_logits(1)).tolist() == [BAD_ROW]
