"""What generation must never depend on: chunks, neighbours, the order of requests, how often a prefix was computed."""

import math
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circius.base.config import Window
from circius.engine.generate import BatchLimits, generate
from circius.engine.llm import LLM
from circius.engine.outputs import Logprobs
from circius.engine.params import SamplingParams
from circius.engine.request import Limits, make_request
from circius.engine.score import continued_logprobs, score_stream, score_tokens
from circius.engine.session import ChatSession
from circius.model import RollingCache, Transformer
from tests.models import random_model, tiny_config
from tests.unit.engine.tiny import byte_llm

WINDOWS = st.sampled_from([None, 1, 3, 5, 8])
IDS = st.lists(st.integers(0, 60), min_size=1, max_size=25)
CHUNKS = st.integers(1, 30)
FEW = settings(max_examples=25, deadline=None)


@cache
def _model(window: Window) -> Transformer:
    return random_model(tiny_config(window=window)).requires_grad_(False)


@pytest.fixture(scope="module")
def llms(tmp_path_factory: pytest.TempPathFactory) -> dict[Window, LLM]:
    return {window: byte_llm(tmp_path_factory.mktemp("bytes"), window=window) for window in (None, 8, 40)}


def _generate(
    model: Transformer, prompts: list[list[int]], params: list[SamplingParams], *, rows: int = 8, chunk: int = 512
) -> list[list[list[int]]]:
    limits = Limits(context=64, vocab_size=61, has_tokenizer=False)
    requests = [make_request(ids, own, limits) for ids, own in zip(prompts, params, strict=True)]
    outs = generate(model, requests, limits=BatchLimits(max_rows=rows, chunk_size=chunk))
    return [[output.token_ids for output in out.outputs] for out in outs]


def _logprobs(model: Transformer, ids: list[int], chunk: int) -> torch.Tensor:
    cache_ = RollingCache(model.config, [len(ids)], dtype=model.dtype, device=model.device)
    with torch.inference_mode():
        return torch.cat(list(continued_logprobs(model, cache_, ids, chunk_size=chunk)))


@FEW
@given(window=WINDOWS, ids=st.lists(st.integers(0, 60), min_size=2, max_size=60), chunk=CHUNKS)
def test_chunk_size_never_changes_log_probabilities(window: Window, ids: list[int], chunk: int) -> None:
    model = _model(window)
    whole = model(torch.tensor(ids), [len(ids)]).log_softmax(-1)[:-1].gather(1, torch.tensor(ids)[1:, None])[:, 0]
    torch.testing.assert_close(_logprobs(model, ids, chunk), whole, rtol=0, atol=1e-5)


@FEW
@given(window=WINDOWS, ids=IDS, chunk=CHUNKS, seed=st.integers(0, 99), n=st.integers(1, 2))
def test_generate_then_score_again(window: Window, ids: list[int], chunk: int, seed: int, n: int) -> None:
    model = _model(window)
    params = SamplingParams(
        n=n, seed=seed, temperature=1.5, top_k=20, max_tokens=12, logprobs=0, prompt_logprobs=0, repetition_penalty=1.1
    )
    out = LLM.of(model, chunk_size=chunk).generate(ids, params)[0]
    for output in out.outputs:
        text = ids + output.token_ids
        entries: list[Logprobs | None] = [*(out.prompt_logprobs or []), *(output.logprobs or [])]
        said = [entry[token].logprob for entry, token in zip(entries, text, strict=True) if entry is not None]
        assert said == pytest.approx(_logprobs(model, text, 512).tolist(), abs=1e-5)
        assert score_tokens(model, text, context=64).total_nll == pytest.approx(-math.fsum(said), abs=1e-4)


@FEW
@given(
    window=WINDOWS,
    prompts=st.lists(IDS, min_size=1, max_size=6),
    lengths=st.lists(st.integers(1, 12), min_size=6, max_size=6),
    rows=st.integers(1, 8),
    chunk=CHUNKS,
)
def test_greedy_in_a_batch_is_greedy_alone(
    window: Window, prompts: list[list[int]], lengths: list[int], rows: int, chunk: int
) -> None:
    params = [SamplingParams.greedy(max_tokens=length) for length in lengths[: len(prompts)]]
    together = _generate(_model(window), prompts, params, rows=rows, chunk=chunk)
    alone = [_generate(_model(window), [ids], [own])[0] for ids, own in zip(prompts, params, strict=True)]
    assert together == alone


@FEW
@given(
    window=WINDOWS,
    prompts=st.lists(IDS, min_size=1, max_size=4),
    seeds=st.lists(st.integers(0, 2**32), min_size=4, max_size=4),
    n=st.integers(1, 3),
    rows=st.integers(1, 8),
)
def test_a_seed_draws_the_same_alone_and_in_a_batch(
    window: Window, prompts: list[list[int]], seeds: list[int], n: int, rows: int
) -> None:
    params = [
        SamplingParams(n=n, seed=seed, top_p=0.9, presence_penalty=0.3, max_tokens=8) for seed in seeds[: len(prompts)]
    ]
    together = _generate(_model(window), prompts, params, rows=rows)
    alone = [_generate(_model(window), [ids], [own])[0] for ids, own in zip(prompts, params, strict=True)]
    assert together == alone
    single = [SamplingParams(seed=own.seed, top_p=0.9, presence_penalty=0.3, max_tokens=8) for own in params]
    assert [answers[0] for answers in together] == [
        answers[0] for answers in _generate(_model(window), prompts, single)
    ]


@FEW
@given(ids=st.lists(st.integers(0, 60), min_size=2, max_size=150), chunk=CHUNKS, window=st.integers(1, 8))
def test_a_stream_scores_as_one_plain_forward(ids: list[int], chunk: int, window: int) -> None:
    model = _model(window)
    logprobs = model(torch.tensor(ids), [len(ids)]).double().log_softmax(-1)[:-1]
    expected = -float(logprobs.gather(1, torch.tensor(ids)[1:, None]).sum())
    assert score_stream(model, iter(ids), chunk_size=chunk).total_nll == pytest.approx(expected, abs=1e-5 * len(ids))


@settings(max_examples=10, deadline=None)
@given(
    window=st.sampled_from([None, 8, 40]),
    turns=st.lists(st.text("abc ", min_size=1, max_size=12), min_size=1, max_size=3),
    edits=st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_a_session_answers_as_a_fresh_start_would(
    llms: dict[Window, LLM], window: Window, turns: list[str], edits: list[bool]
) -> None:
    llm, greedy = llms[window], SamplingParams.greedy(max_tokens=6)
    session = ChatSession(llm)
    for turn, edited in zip(turns, edits, strict=False):
        if edited:
            session.messages = session.messages[2:]
        asked = [*session.messages, {"role": "user", "content": turn}]
        assert session.ask(turn, greedy).outputs == llm.chat(asked, greedy)[0].outputs
