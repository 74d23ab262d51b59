"""Both samplers: their distribution, their stages, their seeds, and what a draft changes in them: nothing."""

import math
from collections.abc import Callable, Sequence
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from circius.engine.device_sampler import DeviceSampler, cut_min_p, cut_top_k, cut_top_p
from circius.engine.host_sampler import HostSampler
from circius.engine.params import SamplingParams
from circius.engine.sampling import BAD_ROW, Sampler, SamplerRow

VOCAB = 50

MakeSampler = Callable[[Sequence[SamplerRow], int], Sampler]


def _host(rows: Sequence[SamplerRow], vocab: int) -> Sampler:
    return HostSampler(rows, vocab_size=vocab)


def _device(rows: Sequence[SamplerRow], vocab: int) -> Sampler:
    return DeviceSampler(rows, vocab_size=vocab, device="cpu")


both = pytest.mark.parametrize("make", [_host, _device])


def _logits(rows: int, seed: int = 0, vocab: int = VOCAB) -> Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * 3


def _sampler(make: MakeSampler, *params: SamplingParams, prompt: tuple[int, ...] = (1,), vocab: int = VOCAB) -> Sampler:
    return make([SamplerRow(p, prompt) for p in params], vocab)


def _next(sampler: Sampler, logits: Tensor) -> list[int]:
    """The tokens of a step without drafts."""
    return [token for (token,) in sampler(logits, [[]] * len(logits))]


@both
def test_greedy_is_the_argmax(make: MakeSampler) -> None:
    logits = _logits(4)
    assert _next(_sampler(make, *[SamplingParams.greedy()] * 4), logits) == logits.argmax(-1).tolist()


@both
def test_greedy_rows_stay_exact_beside_random_ones(make: MakeSampler) -> None:
    logits = _logits(3)
    params = SamplingParams.greedy(), SamplingParams(seed=1, top_p=0.5), SamplingParams.greedy()
    tokens = _next(_sampler(make, *params), logits)
    assert [tokens[0], tokens[2]] == logits.argmax(-1)[[0, 2]].tolist()


@both
def test_logits_are_not_changed(make: MakeSampler) -> None:
    logits = _logits(1)
    before = logits.clone()
    params = SamplingParams(logit_bias={3: 5.0}, repetition_penalty=2.0, top_k=3, top_p=0.5, min_p=0.1, min_tokens=2)
    _next(make([SamplerRow(params, [1], frozenset({2}))], VOCAB), logits)
    assert torch.equal(logits, before)


@both
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
@pytest.mark.parametrize("drafted", [None, 0, 3])
def test_draws_follow_the_distribution(make: MakeSampler, params: dict[str, float], drafted: int | None) -> None:
    """Also where each step is a place behind a drafted token, the same one over and over."""
    vocab, n_rows, n_steps = 8, 1000, 20
    n = n_rows * n_steps
    logits = _logits(1, seed=3, vocab=vocab)
    rows = [SamplingParams(seed=seed, **params) for seed in range(n_rows)]  # type: ignore[arg-type]
    given, sampler = rows[0], _sampler(make, *rows, vocab=vocab)
    draft = [] if drafted is None else [drafted] * 3
    wide = logits.expand(n_rows * (len(draft) + 1), -1)
    drawn: list[list[int]] = [[] for _ in rows]
    while min(map(len, drawn)) < n_steps:
        for row, tokens in zip(drawn, sampler(wide, [draft] * n_rows), strict=True):
            row += tokens
    scores = logits / given.temperature
    if given.top_k:
        scores = cut_top_k(scores, torch.tensor([[given.top_k]]), largest=given.top_k)
    scores = cut_min_p(scores, torch.tensor([[given.min_p]]))
    expected = cut_top_p(scores, torch.tensor([[given.top_p]])).softmax(-1)[0] * n
    counts = torch.bincount(torch.tensor([row[:n_steps] for row in drawn]).flatten(), minlength=vocab).double()
    possible = expected > 0
    assert counts[~possible].sum() == 0
    chi_square = float(((counts - expected) ** 2 / expected)[possible].sum())
    assert chi_square < 24.3  # the 99.9th percentile for 7 degrees of freedom


@given(seed=st.integers(0, 10_000))
def test_top_k_1_and_tiny_top_p_equal_the_argmax(seed: int) -> None:
    logits = _logits(3, seed)
    params = (
        SamplingParams(top_k=1, temperature=3, seed=seed),
        SamplingParams(top_p=1e-6, seed=seed),
        SamplingParams(temperature=1e-5, seed=seed),
    )
    for make in (_host, _device):
        assert _next(_sampler(make, *params), logits) == logits.argmax(-1).tolist()


PARAMS = st.builds(
    SamplingParams,
    seed=st.integers(0, 2**40),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 5, 1000]),
    top_p=st.sampled_from([1.0, 0.5, 0.95, 1e-6]),
    min_p=st.sampled_from([0.0, 0.02, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.8]),
    frequency_penalty=st.sampled_from([0.0, 0.4]),
    presence_penalty=st.sampled_from([0.0, -0.5]),
    logit_bias=st.sampled_from([None, {3: 4.0, 7: -math.inf}]),
    min_tokens=st.sampled_from([0, 5]),
)


@settings(max_examples=60, deadline=None)
@given(params=st.lists(PARAMS, min_size=1, max_size=4), vocab=st.sampled_from([9, 50, 1500]), seed=st.integers(0, 99))
def test_the_host_draws_what_a_device_draws(params: list[SamplingParams], vocab: int, seed: int) -> None:
    rows = [SamplerRow(p, [1, 2], frozenset({4})) for p in params]
    host, device = _host(rows, vocab), _device(rows, vocab)
    for step in range(8):
        logits = _logits(len(rows), seed + step, vocab)
        assert _next(host, logits) == _next(device, logits)
        if step == 4 and len(rows) > 1:
            rows = rows[1:]
            for sampler in (host, device):
                sampler.keep(range(1, len(rows) + 1))


def _told(make: MakeSampler, row: SamplerRow, table: Tensor, n: int) -> list[int]:
    """A text in which the logits behind a token are its row of the table."""
    sampler, text = make([row], len(table)), [0]
    while len(text) <= n:
        text += _next(sampler, table[text[-1:]])
    return text[1:]


@both
@settings(max_examples=50, deadline=None)
@given(params=st.lists(PARAMS, min_size=1, max_size=3), source=st.randoms(use_true_random=False))
def test_drafts_right_or_wrong_leave_the_tokens_as_they_are(
    make: MakeSampler, params: list[SamplingParams], source: Random
) -> None:
    table = _logits(12, source.randrange(100), 12) / 2
    rows = [SamplerRow(p, [1, 2], frozenset({4})) for p in params]
    expected = [_told(make, row, table, 90) for row in rows]
    sampler = make(rows, 12)
    texts: list[list[int]] = [[] for _ in rows]
    while min(map(len, texts)) < 15:
        drafts = []
        for own, text in zip(expected, texts, strict=True):
            draft = own[len(text) : len(text) + source.randint(0, 5)]
            if draft and source.random() < 0.5:
                draft[source.randrange(len(draft))] = source.randrange(12)
            drafts.append(draft)
        before = [[([0, *text])[-1], *draft] for text, draft in zip(texts, drafts, strict=True)]
        logits = table[[token for tokens in before for token in tokens]]
        for own, text, draft, taken in zip(expected, texts, drafts, sampler(logits, drafts), strict=True):
            right = own[len(text) : len(text) + len(draft) + 1]
            n_right = next((i for i, token in enumerate(draft) if token != right[i]), len(draft))
            assert taken == right[: n_right + 1]
            text += taken


@settings(max_examples=20)
@given(seed=st.integers(0, 2**40), others=st.integers(1, 4))
def test_a_seeded_row_draws_the_same_alone_and_in_any_batch(seed: int, others: int) -> None:
    mine = SamplingParams(seed=seed, temperature=1.5, top_p=0.95)
    for make in (_host, _device):
        alone, batched = _sampler(make, mine), _sampler(make, *[SamplingParams(top_k=5)] * others, mine)
        for step in range(5):
            logits = _logits(1, step)
            together = torch.cat([_logits(others, 100 + step), logits])
            assert _next(alone, logits) == _next(batched, together)[-1:]


@both
def test_rows_that_leave_do_not_disturb_the_others(make: MakeSampler) -> None:
    params = [SamplingParams(seed=s, frequency_penalty=1.0, repetition_penalty=1.3) for s in range(3)]
    alone, batched = _sampler(make, params[2]), _sampler(make, *params)
    for step in range(6):
        logits = _logits(1, step)
        rows = 3 if step < 2 else 2
        if step == 2:
            batched.keep([1, 2])
        assert _next(alone, logits) == _next(batched, logits.expand(rows, -1))[-1:]


@both
def test_the_answers_to_one_prompt_differ_and_the_first_is_that_of_n_1(make: MakeSampler) -> None:
    params = SamplingParams(n=3, seed=5, temperature=2.0)
    sampler = make([SamplerRow(params, [1], answer=answer) for answer in range(3)], VOCAB)
    alone = _sampler(make, SamplingParams(seed=5, temperature=2.0))
    logits = [_logits(1, step) for step in range(20)]
    drawn = [_next(sampler, x.expand(3, -1)) for x in logits]
    first, second, third = zip(*drawn, strict=True)
    assert list(first) == [_next(alone, x)[0] for x in logits]
    assert len({first, second, third}) == 3


@both
def test_no_seed_means_a_fresh_one(make: MakeSampler) -> None:
    logits = _logits(1)
    draws = [[_next(_sampler(make, SamplingParams(temperature=5.0)), logits) for _ in range(30)] for _ in range(2)]
    assert draws[0] != draws[1]


@both
def test_bias_moves_and_forbids(make: MakeSampler) -> None:
    logits = _logits(2)
    best = int(logits[1].argmax())
    params = SamplingParams.greedy(logit_bias={7: 1000.0}), SamplingParams.greedy(logit_bias={best: -math.inf})
    assert _next(_sampler(make, *params), logits) == [7, int(logits[1].topk(2).indices[1])]


@both
def test_presence_and_frequency_follow_their_formula(make: MakeSampler) -> None:
    logits = torch.tensor([[2.0, 1.9, 0.0]])
    frequency = _sampler(make, SamplingParams.greedy(frequency_penalty=0.06), prompt=(0,), vocab=3)
    # 2.00 0.06 less each time it was taken: 2.00, then 1.94, then 1.88 < 1.90, which after one use is 1.84.
    assert [_next(frequency, logits) for _ in range(4)] == [[0], [0], [1], [0]]
    presence = _sampler(make, SamplingParams.greedy(presence_penalty=0.2), prompt=(0,), vocab=3)
    # 2.0, then 1.8 < 1.9, then 1.8 > 1.7, and no further loss with use.
    assert [_next(presence, logits) for _ in range(4)] == [[0], [1], [0], [0]]


@both
def test_end_tokens_are_not_drawn_before_min_tokens(make: MakeSampler) -> None:
    logits = _logits(1)
    best = int(logits.argmax())
    sampler = make([SamplerRow(SamplingParams.greedy(min_tokens=2), [1], frozenset({best}))], VOCAB)
    assert [_next(sampler, logits) == [best] for _ in range(4)] == [False, False, True, True]


@both
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_row_with_broken_logits_gives_no_token(make: MakeSampler, bad: float) -> None:
    logits = _logits(2)
    logits[1, 4] = bad
    params = SamplingParams.greedy(), SamplingParams(presence_penalty=1, top_p=0.5, top_k=9)
    tokens = _next(_sampler(make, *params), logits)
    assert tokens[1] == BAD_ROW
    assert tokens[0] != BAD_ROW


@both
def test_a_place_with_broken_logits_ends_the_tokens_only_if_it_is_reached(make: MakeSampler) -> None:
    logits = _logits(3)
    logits[2] = math.nan
    first, second = logits.argmax(-1)[:2].tolist()
    assert _sampler(make, SamplingParams.greedy())(logits, [[first, second]]) == [[first, second, BAD_ROW]]
    assert _sampler(make, SamplingParams.greedy())(logits, [[first, second + 1]]) == [[first, second]]


@both
def test_a_row_in_which_all_is_forbidden_gives_no_token(make: MakeSampler) -> None:
    params = SamplingParams(logit_bias=dict.fromkeys(range(VOCAB), -math.inf))
    assert _next(_sampler(make, params), _logits(1)) == [BAD_ROW]


@both
def test_a_bias_past_all_floats_is_no_reason_for_a_warning(make: MakeSampler) -> None:
    params = SamplingParams(logit_bias={3: -1e39}, temperature=2e-5), SamplingParams(logit_bias={3: 1e39})
    tokens = _next(_sampler(make, *params), _logits(2))
    assert tokens[0] not in (3, BAD_ROW)
    assert tokens[1] == BAD_ROW
