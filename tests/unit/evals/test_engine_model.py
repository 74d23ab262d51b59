"""Our engine as a benchmark's model: tokens, cuts, samples, what tells models apart."""

from pathlib import Path

import pytest
import torch

from circius.base.errors import ContextOverflowError, InvalidInputError
from circius.engine.llm import LLM
from circius.engine.params import SamplingParams
from circius.evals.engine_model import EngineModel
from circius.evals.identity import digest_of
from circius.evals.item import Choices, Passage, Text
from circius.evals.pairs import Pair, encode_pair, fitted
from tests.unit.engine.tiny import byte_llm, tiny_model
from tests.vocabularies import mistral

CONTEXT = Choices.after("The sea is", [" blue", " red", " green"], "Answer:")


def _model(folder: Path, **given: int) -> EngineModel:
    return EngineModel(byte_llm(folder, window=40, chunk_size=64, **given), max_streams=3)


@pytest.mark.parametrize("version", ["v1", "v3"])
def test_bos_stands_in_front_exactly_once(version: str) -> None:
    tokenizer = mistral(version)
    pair = encode_pair(lambda text: tokenizer.encode(text, bos=True), "Answer:", " yes", start=tokenizer.bos_id)
    assert pair.context == (1, *tokenizer.encode("Answer:"))
    assert [*pair.context, *pair.continuation] == [1, *tokenizer.encode("Answer: yes")]


def test_spaces_at_the_end_of_a_context_belong_to_the_continuation() -> None:
    tokenizer = mistral("v1")

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, bos=True)

    assert encode_pair(encode, "Answer: ", "yes", start=1) == encode_pair(encode, "Answer:", " yes", start=1)
    assert encode_pair(encode, "", "yes", start=1) == Pair((1,), tuple(tokenizer.encode("yes")))


def test_an_empty_context_needs_something_to_start_from() -> None:
    tokenizer = mistral("v1")
    assert encode_pair(tokenizer.encode, "", "yes", start=7).context == (7,)
    with pytest.raises(InvalidInputError, match="give some context"):
        encode_pair(tokenizer.encode, "", "yes", start=None)


def test_a_continuation_without_a_token_of_its_own_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="adds no token"):
        encode_pair(lambda text: [len(text) // 8], "context", "x", start=1)


def test_what_does_not_fit_leaves_the_context_after_bos() -> None:
    pair = Pair((1, 5, 6, 7), (8, 9))
    assert fitted(pair, 6, has_bos=True) == pair
    assert fitted(pair, 4, has_bos=True) == Pair((1, 7), (8, 9), 2)
    assert fitted(pair, 4, has_bos=False) == Pair((6, 7), (8, 9), 2)
    with pytest.raises(InvalidInputError, match="larger --context"):
        fitted(pair, 2, has_bos=True)


def test_likelihoods_are_those_of_prompts_scored_alone(tiny: EngineModel) -> None:
    (answer,) = tiny.loglikelihoods([CONTEXT])
    assert answer.unconditional is not None
    for place, continuation in enumerate(CONTEXT.continuations):
        assert answer.logprobs[place] == pytest.approx(_alone(tiny.llm, CONTEXT.contexts[place], continuation))
        assert answer.unconditional[place] == pytest.approx(_alone(tiny.llm, "Answer:", continuation))
        ids = [*answer.context_ids[place], *answer.continuation_ids[place]]
        assert ids == tiny.encode(CONTEXT.contexts[place] + continuation)


def _alone(llm: LLM, context: str, continuation: str) -> float:
    """By the engine's own log-probabilities of a prompt, through another path."""
    params = SamplingParams.greedy(max_tokens=1, prompt_logprobs=0)
    (output,) = llm.generate(context + continuation, params)
    entries = output.prompt_logprobs
    assert entries is not None
    n_own = len(continuation.encode())
    own = zip(output.prompt_token_ids[-n_own:], entries[-n_own:], strict=True)
    return sum(entry[token].logprob for token, entry in own if entry is not None)


def test_a_continuation_that_the_model_would_write_is_greedy(tiny: EngineModel) -> None:
    written = tiny.texts([Text(prompt="The sea is", max_tokens=4)])[0].samples[0]
    tokenizer = tiny.llm.tokenizer
    assert tokenizer is not None
    own = "".join(tokenizer.decode([token]) for token in written.ids)
    (answer,) = tiny.loglikelihoods([Choices.after("The sea is", [own, " x"])])
    if tokenizer.encode(own) == list(written.ids):  # bytes that are no text cannot be asked for
        assert answer.is_greedy == (True, False)


def test_long_contexts_lose_tokens_behind_bos_and_say_how_many(tmp_path: Path) -> None:
    model = _model(tmp_path, context=20)
    (answer,) = model.loglikelihoods([Choices.after("x" * 40, ["yz"])])
    assert answer.n_cut == 1 + 40 + 2 - 21
    assert len(answer.context_ids[0]) + len(answer.continuation_ids[0]) == 21
    assert answer.context_ids[0][0] == model.tokens.start
    (text,) = model.texts([Text(prompt="x" * 40, max_tokens=5)])
    assert (text.n_cut, len(text.prompt_ids)) == (41 + 5 - 20, 15)


def test_an_answer_that_leaves_no_room_for_its_prompt_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContextOverflowError):
        _model(tmp_path, context=20).texts([Text(prompt="abc", max_tokens=20)])


def test_samples_depend_on_their_seed_alone(tiny: EngineModel) -> None:
    ask = Text(prompt="One", max_tokens=6, n=3, temperature=1.0, seed=5)
    (alone,) = tiny.texts([ask])
    beside = tiny.texts([Text(prompt="Two", max_tokens=9), ask, Text(prompt="One", max_tokens=3)])[1]
    (other,) = tiny.texts([Text(prompt="One", max_tokens=6, n=3, temperature=1.0, seed=6)])
    assert [sample.ids for sample in alone.samples] == [sample.ids for sample in beside.samples]
    assert len({sample.ids for sample in alone.samples}) > 1
    assert alone.samples != other.samples
    assert all(sample.logprob is not None and sample.logprob < 0 for sample in alone.samples)


def test_stops_end_an_answer_and_are_no_part_of_it(tiny: EngineModel) -> None:
    whole = tiny.texts([Text(prompt="The", max_tokens=12)])[0].text
    stop = whole[2:4]
    assert tiny.texts([Text(prompt="The", max_tokens=12, stop=(stop,))])[0].text == whole[: whole.index(stop)]


def test_an_interrupted_answer_is_no_answer(tiny: EngineModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C makes the engine hand out what it has; here that must not pass for an answer."""

    def interrupted(*_: object, **__: object) -> torch.Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(tiny.llm.model, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tiny.texts([Text(prompt="The", max_tokens=12)])


def test_passages_must_fit(tmp_path: Path) -> None:
    model = _model(tmp_path, context=20)
    assert model.passages([Passage(ids=tuple(range(21)))])[0].n_tokens == 20
    with pytest.raises(InvalidInputError, match="does not fit into the context of 20"):
        model.passages([Passage(ids=tuple(range(22)))])


def test_a_model_without_a_tokenizer_cannot_be_asked() -> None:
    with pytest.raises(InvalidInputError, match="without a tokenizer"):
        EngineModel(LLM.of(tiny_model()))


def test_models_are_told_apart_by_their_weights(tmp_path: Path) -> None:
    one, same, other = (EngineModel(byte_llm(tmp_path, seed=seed)).describe() for seed in (0, 0, 1))
    assert one == same
    assert one["sha256"] != other["sha256"]


def test_a_digest_of_files_covers_weights_and_shape(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text("hello")
    heard: list[tuple[int, int]] = []
    before = digest_of(tmp_path, lambda done, total: heard.append((done, total)))
    assert heard[-1] == (9, 9)
    (tmp_path / "README.md").write_text("changed")
    assert digest_of(tmp_path) == before
    (tmp_path / "config.json").write_text("[]")
    assert digest_of(tmp_path) != before
