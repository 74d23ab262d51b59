"""Whatever is drafted, right or wrong: the answers, and all that is said about them, are those made without drafts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circius.base.config import Window
from circius.base.errors import CacheFullError
from circius.engine import batch
from circius.engine.devices import is_exact_in_batches
from circius.engine.generate import BatchLimits, generate
from circius.engine.llm import LLM
from circius.engine.outputs import CompletionOutput
from circius.engine.params import SamplingParams
from circius.engine.request import Limits, make_request
from circius.engine.session import ChatSession
from circius.kernels import ring_attention
from circius.model import RollingCache, Transformer
from tests.models import random_model, random_tokens, tiny_config
from tests.packed import fully_packed_model, packable_config
from tests.unit.engine.tiny import byte_llm

WINDOWS = st.sampled_from([None, 1, 3, 5, 8])
FEW = settings(max_examples=40, deadline=None)
MOST = 4


class Guesses:
    """Stands for the `Speculator`: drafts what the answers are known to be, here and there with a wrong token."""

    answers: Sequence[Sequence[int]] = ()
    source = Random(0)

    def __init__(self, texts: Sequence[Sequence[int]], *, n_most: int) -> None:
        self._n_taken = [0] * len(texts)
        self._n_most = n_most

    def took(self, rows: Sequence[int], tokens: Sequence[Sequence[int]]) -> None:
        for row, own in zip(rows, tokens, strict=True):
            self._n_taken[row] += len(own)

    def timed(self, n_rows: int, n_tokens: int, seconds: float) -> None:
        pass

    def drafts(self, rows: Sequence[int], rooms: Sequence[int]) -> list[list[int]]:
        return [self._draft(row, min(self._n_most, room)) for row, room in zip(rows, rooms, strict=True)]

    def _draft(self, row: int, most: int) -> list[int]:
        begin = self._n_taken[row]
        draft = list(self.answers[row][begin : begin + self.source.randint(0, most)])
        if draft and self.source.random() < 0.4:
            draft[self.source.randrange(len(draft))] = self.source.randrange(61)
        return draft


@contextmanager
def guessing(answers: Sequence[Sequence[int]], source: Random) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Guesses, "answers", answers)
        patch.setattr(Guesses, "source", source)
        patch.setattr(batch, "Speculator", Guesses)
        yield


@cache
def _model(window: Window) -> Transformer:
    return random_model(tiny_config(window=window)).requires_grad_(False)


@cache
def _packed(window: Window) -> Transformer:
    return fully_packed_model(packable_config(window=window))


@pytest.fixture(scope="module")
def llms(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[Window, int], LLM]:
    folder = tmp_path_factory.mktemp("bytes")
    return {(w, n): byte_llm(folder, window=w, speculate=n) for w in (None, 8, 40) for n in (0, MOST)}


def _outputs(
    model: Transformer, prompts: list[list[int]], params: list[SamplingParams], *, speculate: int = 0
) -> list[CompletionOutput]:
    limits = Limits(context=100, vocab_size=61, has_tokenizer=False)
    requests = [make_request(ids, own, limits) for ids, own in zip(prompts, params, strict=True)]
    outs = generate(model, requests, limits=BatchLimits(max_rows=100, speculate=speculate))
    return [output for out in outs for output in out.outputs]


def _same(found: Sequence[CompletionOutput], expected: Sequence[CompletionOutput]) -> None:
    """Log-probabilities may differ in their last bits: these weights are not packed."""
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.token_ids == theirs.token_ids
        assert ours.text == theirs.text
        assert (ours.finish_reason, ours.stop_reason) == (theirs.finish_reason, theirs.stop_reason)
        assert (ours.logprobs is None) == (theirs.logprobs is None)
        for own, other in zip(ours.logprobs or [], theirs.logprobs or [], strict=True):
            assert list(own) == list(other)
            assert [x.rank for x in own.values()] == [x.rank for x in other.values()]
            assert [x.logprob for x in own.values()] == pytest.approx([x.logprob for x in other.values()], abs=1e-4)


PARAMS = st.builds(
    SamplingParams,
    seed=st.integers(0, 2**32),
    temperature=st.sampled_from([0.0, 0.7, 1.5]),
    top_p=st.sampled_from([1.0, 0.8]),
    top_k=st.sampled_from([0, 5]),
    repetition_penalty=st.sampled_from([1.0, 1.2]),
    presence_penalty=st.sampled_from([0.0, 0.5]),
    logit_bias=st.sampled_from([None, {7: 3.0}]),
    stop_token_ids=st.sampled_from([(), (5, 20)]),
    min_tokens=st.sampled_from([0, 4]),
    max_tokens=st.integers(4, 20),
    logprobs=st.sampled_from([None, 2]),
)


@FEW
@given(
    window=WINDOWS,
    prompts=st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=25), min_size=4, max_size=4),
    params=st.lists(PARAMS, min_size=1, max_size=4),
    source=st.randoms(use_true_random=False),
)
def test_any_drafts_give_the_same_answers(
    window: Window, prompts: list[list[int]], params: list[SamplingParams], source: Random
) -> None:
    prompts = prompts[: len(params)]
    expected = _outputs(_model(window), prompts, params)
    with guessing([output.token_ids for output in expected], source):
        _same(_outputs(_model(window), prompts, params, speculate=MOST), expected)


@pytest.mark.skipif(not ring_attention.is_fast(), reason="the native kernels were not built here")
@FEW
@given(
    window=WINDOWS,
    prompts=st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=25), min_size=4, max_size=4),
    params=st.lists(PARAMS, min_size=1, max_size=4),
    source=st.randoms(use_true_random=False),
)
def test_with_packed_weights_not_even_a_bit_of_a_log_probability_differs(
    window: Window, prompts: list[list[int]], params: list[SamplingParams], source: Random
) -> None:
    model = _packed(window)
    assert is_exact_in_batches(model)
    prompts = prompts[: len(params)]
    expected = _outputs(model, prompts, params)
    with guessing([output.token_ids for output in expected], source):
        assert _outputs(model, prompts, params, speculate=MOST) == expected


@FEW
@given(
    window=WINDOWS,
    prompt=st.lists(st.integers(0, 60), min_size=1, max_size=25),
    n=st.integers(2, 4),
    seed=st.integers(0, 2**32),
    source=st.randoms(use_true_random=False),
)
def test_any_drafts_give_the_same_n_answers(
    window: Window, prompt: list[int], n: int, seed: int, source: Random
) -> None:
    params = [SamplingParams(n=n, seed=seed, max_tokens=15, temperature=1.2)]
    expected = _outputs(_model(window), [prompt], params)
    with guessing([output.token_ids for output in expected], source):
        _same(_outputs(_model(window), [prompt], params, speculate=MOST), expected)


@FEW
@given(
    window=WINDOWS,
    motifs=st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=6), min_size=1, max_size=3),
    temperature=st.sampled_from([0.0, 0.2]),
    speculate=st.integers(1, 9),
)
def test_looking_up_gives_the_same_answers(
    window: Window, motifs: list[list[int]], temperature: float, speculate: int
) -> None:
    """With the real drafts, which follow the clock, on prompts that repeat themselves and models that do."""
    prompts = [motif * (24 // len(motif)) for motif in motifs]
    params = [SamplingParams(seed=1, temperature=temperature, max_tokens=40)] * len(prompts)
    expected = _outputs(_model(window), prompts, params)
    _same(_outputs(_model(window), prompts, params, speculate=speculate), expected)


@FEW
@given(
    prompt=st.text("ab ", max_size=12),
    stops=st.lists(st.text("abc", min_size=1, max_size=3), max_size=2),
    included=st.booleans(),
    n_pieces=st.integers(1, 30),
    source=st.randoms(use_true_random=False),
)
def test_pieces_stops_and_ends_come_at_the_same_tokens(
    llms: dict[tuple[Window, int], LLM],
    prompt: str,
    stops: list[str],
    included: bool,
    n_pieces: int,
    source: Random,
) -> None:
    """The callback sees the same pieces in the same order, and can end the answer after any of them."""
    params = SamplingParams(
        seed=3,
        max_tokens=25,
        stop=stops,
        include_stop_str_in_output=included,
        logit_bias={3 + byte: 1000.0 for byte in b"abc"},
    )

    def told(llm: LLM) -> tuple[list[tuple[str, list[int]]], CompletionOutput]:
        pieces: list[tuple[str, list[int]]] = []

        def take(_prompt: int, _index: int, text: str, ids: Sequence[int]) -> bool:
            pieces.append((text, list(ids)))
            return len(pieces) < n_pieces

        return pieces, llm.generate(prompt, params, on_token=take)[0].outputs[0]

    pieces, expected = told(llms[None, 0])
    with guessing([expected.token_ids], source):
        assert told(llms[None, MOST]) == (pieces, expected)


@settings(max_examples=15, deadline=None)
@given(
    window=st.sampled_from([None, 8, 40]),
    turns=st.lists(st.text("abc ", min_size=1, max_size=12), min_size=1, max_size=4),
    edits=st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_a_session_with_drafts_answers_as_one_without(
    llms: dict[tuple[Window, int], LLM], window: Window, turns: list[str], edits: list[bool]
) -> None:
    """The cache that drafts leave behind is as good as one that never saw them, also when a turn is taken back."""
    params = SamplingParams(temperature=0.3, seed=2, max_tokens=12)
    plain, drafting = ChatSession(llms[window, 0]), ChatSession(llms[window, MOST])
    for turn, edited in zip(turns, edits, strict=False):
        for session in (plain, drafting):
            if edited:
                session.messages = session.messages[:-2]
        assert drafting.ask(turn, params).outputs == plain.ask(turn, params).outputs
        assert drafting.n_cached_tokens == plain.n_cached_tokens


@settings(max_examples=80, deadline=None)
@given(
    window=st.one_of(st.none(), st.integers(1, 12)),
    extra_slots=st.integers(0, 5),
    steps=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 8)), min_size=1, max_size=12),
)
def test_a_row_that_is_taken_back_again_and_again_stays_exact_or_refuses(
    window: Window, extra_slots: int, steps: list[tuple[int, int]]
) -> None:
    model = random_model(tiny_config(window=window))
    cache_ = RollingCache(model.config, [100], dtype=torch.float32, device="cpu", extra_slots=extra_slots)
    kept = torch.empty(0, dtype=torch.int64)
    with torch.inference_mode():
        for number, (n_new, back) in enumerate(steps):
            new = random_tokens(n_new, seed=number)
            found = model(new, [n_new], cache=cache_)
            kept = torch.cat((kept, new))
            expected = model(kept, [len(kept)])[-n_new:]
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
            target = max(0, len(kept) - back)
            if back <= min(extra_slots, n_new):
                assert cache_.can_truncate(0, target)
            if cache_.can_truncate(0, target):
                cache_.truncate(0, target)
                kept = kept[:target]
            else:
                with pytest.raises(CacheFullError, match="go back"):
                    cache_.truncate(0, target)
