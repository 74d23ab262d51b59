"""Scores against one plain forward over each segment, and streams at constant memory."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from circius.base.errors import CirciusError, InvalidInputError, ParamsError, PromptError
from circius.engine.llm import LLM
from circius.engine.score import Score, score_stream, score_tokens
from circius.model import RollingCache, Transformer
from tests.models import random_tokens
from tests.unit.engine.tiny import byte_llm, tiny_model

BOS = 1


def _nll(model: Transformer, ids: list[int], first: int) -> float:
    """The sum over the tokens from `first` on, by one forward without a cache."""
    logprobs = model(torch.tensor(ids), [len(ids)]).double().log_softmax(-1)
    return -sum(float(logprobs[place - 1, ids[place]]) for place in range(max(first, 1), len(ids)))


def _ids(n: int) -> list[int]:
    return random_tokens(n).tolist()


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("chunk_size", [1, 4, 512])
def test_a_text_inside_the_context_is_one_segment(window: int | None, chunk_size: int) -> None:
    model, ids = tiny_model(window=window), _ids(30)
    score = score_tokens(model, ids, bos_id=BOS, chunk_size=chunk_size)
    assert score.n_tokens == 30
    assert score.total_nll == pytest.approx(_nll(model, [BOS, *ids], 1), rel=1e-6)
    without = score_tokens(model, ids, chunk_size=chunk_size)
    assert without.n_tokens == 29
    assert without.total_nll == pytest.approx(_nll(model, ids, 1), rel=1e-6)
    assert "no BOS" in without.notes[1]


@pytest.mark.parametrize("n", [9, 10, 18, 19, 25])
def test_a_long_text_is_cut_into_segments_with_a_bos_each(n: int) -> None:
    model, ids = tiny_model(), _ids(n)
    score = score_tokens(model, ids, bos_id=BOS, context=10)
    segments = [ids[begin : begin + 9] for begin in range(0, n, 9)]
    assert score.n_tokens == n
    assert score.total_nll == pytest.approx(sum(_nll(model, [BOS, *part], 1) for part in segments), rel=1e-6)
    assert score.notes == (f"scored {len(segments)} segment{'s' * (len(segments) > 1)} of at most 10 tokens",)


def test_without_bos_each_segment_loses_its_first_token() -> None:
    model, ids = tiny_model(), _ids(25)
    score = score_tokens(model, ids, context=10)
    assert score.n_tokens == 22
    assert score.total_nll == pytest.approx(sum(_nll(model, ids[a : a + 10], 1) for a in (0, 10, 20)), rel=1e-6)


@pytest.mark.parametrize("bos", [None, BOS])
@pytest.mark.parametrize("stride", [1, 4, 9])
@pytest.mark.parametrize("chunk_size", [3, 512])
def test_overlapping_segments_count_each_token_once(bos: int | None, stride: int, chunk_size: int) -> None:
    model, ids = tiny_model(), _ids(24)
    start = [] if bos is None else [bos]
    capacity = 10 - len(start)
    expected, done, begin = 0.0, 0, 0
    while done < len(ids):
        segment = ids[begin : begin + capacity]
        expected += _nll(model, [*start, *segment], len(start) + done - begin)
        done, begin = begin + len(segment), begin + stride
    score = score_tokens(model, ids, bos_id=bos, context=10, stride=stride, chunk_size=chunk_size)
    assert score.n_tokens == 24 - (bos is None)
    assert score.total_nll == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("bos", [None, BOS])
@pytest.mark.parametrize("chunk_size", [1, 7, 512])
def test_a_stream_is_one_pass_over_the_whole_text(bos: int | None, chunk_size: int) -> None:
    model, ids = tiny_model(window=5), _ids(200)
    score = score_stream(model, iter(ids), bos_id=bos, chunk_size=chunk_size)
    whole = ids if bos is None else [bos, *ids]
    assert score.n_tokens == len(whole) - 1
    assert score.total_nll == pytest.approx(_nll(model, whole, 1), rel=1e-6)


def test_a_stream_holds_one_window_and_takes_tokens_as_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(window=16)
    made: list[RollingCache] = []
    ahead: list[int] = []
    n_taken = n_scored = 0
    init = RollingCache.__init__

    def noted(cache: RollingCache, *args: object, **kwargs: object) -> None:
        made.append(cache)
        init(cache, *args, **kwargs)  # type: ignore[arg-type]

    def text() -> Iterator[int]:
        nonlocal n_taken
        for token in _ids(3000):
            n_taken += 1
            yield token

    def on_scored(n_tokens: int, _nll: float) -> None:
        nonlocal n_scored
        n_scored = n_tokens
        ahead.append(n_taken - n_scored)

    monkeypatch.setattr(RollingCache, "__init__", noted)
    score = score_stream(model, text(), bos_id=BOS, chunk_size=64, on_scored=on_scored)
    assert score.n_tokens == 3000
    assert max(ahead) <= 1
    assert [cache.n_bytes for cache in made] == [model.config.cache_bytes(10**6, bytes_per_value=4)]
    assert made[0].lengths == [3000]


def test_a_stream_needs_a_window_in_every_layer() -> None:
    with pytest.raises(InvalidInputError, match="sliding window in every layer"):
        score_stream(tiny_model(), [1, 2, 3])


@pytest.mark.parametrize("ids", [[], [5]])
def test_nothing_to_score(ids: list[int]) -> None:
    model = tiny_model(window=5)
    for score in (score_tokens, score_stream):
        with pytest.raises(PromptError, match="nothing to score"):
            score(model, ids)


@pytest.mark.parametrize("given", [{"stride": 0}, {"stride": 11}, {"context": 1}, {"chunk_size": 0}])
def test_a_protocol_that_makes_no_sense_is_refused(given: dict[str, int]) -> None:
    with pytest.raises(ParamsError, match=next(iter(given))):
        score_tokens(tiny_model(), [1, 2, 3], **{"context": 10, **given})


def test_ids_that_the_model_does_not_have_and_weights_that_are_broken() -> None:
    model = tiny_model()
    with pytest.raises(PromptError, match="token 1 of the text is 61"):
        score_tokens(model, [3, 61])
    model.model.norm.weight.data.fill_(math.nan)
    with pytest.raises(CirciusError, match="not finite"):
        score_tokens(model, [3, 4])


def test_figures() -> None:
    score = Score(n_tokens=4, total_nll=8 * math.log(2), n_bytes=16)
    assert score.mean_nll == pytest.approx(2 * math.log(2))
    assert score.perplexity == pytest.approx(4)
    assert score.bits_per_byte == pytest.approx(0.5)
    assert Score(n_tokens=1, total_nll=1e6).perplexity == math.inf
    assert Score(n_tokens=1, total_nll=1.0).bits_per_byte is None


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    return byte_llm(tmp_path_factory.mktemp("bytes"), window=20)


def test_a_text_a_file_and_pieces_score_alike(llm: LLM, tmp_path: Path) -> None:
    text = "Le mistral souffle – très fort.\r\n" * 20
    file = tmp_path / "text.txt"
    file.write_bytes(text.encode())
    scores = [llm.score(given) for given in (text, file, [text[:13], text[13:]])]
    assert scores[0] == scores[1] == scores[2]
    assert scores[0].n_bytes == scores[0].n_tokens == len(text.encode())
    streamed = llm.score(file, stream=True)
    assert streamed.n_tokens == scores[0].n_tokens
    assert streamed.total_nll == pytest.approx(scores[0].total_nll, rel=0.1)
    assert streamed.total_nll != scores[0].total_nll


def test_a_stream_has_no_stride(llm: LLM) -> None:
    with pytest.raises(InvalidInputError, match="stride"):
        llm.score("x", stream=True, stride=4)
