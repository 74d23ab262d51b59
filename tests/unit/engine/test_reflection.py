"""Log-probabilities of named tokens: the model's own, for tokens of any rank, in every way to generate."""

import pytest
import torch

from circius.base.errors import ParamsError
from circius.engine.llm import LLM
from circius.engine.params import SamplingParams
from circius.engine.reflection import NextToken
from circius.engine.session import ChatSession
from tests.unit.engine.tiny import byte_llm

PROMPT = [1, 40, 7, 33, 9, 200]
NAMED = [5, 250, 0]


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    return byte_llm(tmp_path_factory.mktemp("llm"))


def test_named_tokens_have_the_models_log_probability_and_rank(llm: LLM) -> None:
    params = SamplingParams(temperature=2.0, seed=1, max_tokens=5, logprobs=3, logprob_token_ids=[*NAMED, 5])
    [plain, other] = llm.generate([PROMPT, PROMPT], [params, SamplingParams(seed=1, max_tokens=5, logprobs=2)])
    answer = plain.outputs[0]
    ids = torch.tensor(PROMPT + answer.token_ids)
    with torch.inference_mode():
        expected = llm.model(ids, [len(ids)])[len(PROMPT) - 1 : -1].log_softmax(-1)
    for token, entry, row in zip(answer.token_ids, answer.logprobs or [], expected, strict=True):
        assert list(entry) == list(dict.fromkeys([token, *NAMED]))
        for named in NAMED:
            assert entry[named].logprob == pytest.approx(row[named].item(), abs=1e-5)
            assert entry[named].rank == int((row > row[named]).sum()) + 1
    assert all(2 <= len(entry) <= 3 for entry in other.outputs[0].logprobs or []), "a neighbour keeps its likeliest"


def test_a_session_tells_them_too(llm: LLM) -> None:
    answer = ChatSession(llm).ask("Hi", SamplingParams.greedy(max_tokens=2, logprobs=0, logprob_token_ids=NAMED))
    for token, entry in zip(answer.outputs[0].token_ids, answer.outputs[0].logprobs or [], strict=True):
        assert set(entry) == {token, *NAMED}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"logprob_token_ids": [-1], "logprobs": 0}, "logprob_token_ids: a token id must be"),
        ({"logprob_token_ids": "5", "logprobs": 0}, "logprob_token_ids must be a list"),
        ({"logprob_token_ids": [5]}, "set logprobs"),
    ],
)
def test_what_cannot_be_told_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        SamplingParams(**given)  # type: ignore[arg-type]


def test_a_token_that_the_model_does_not_have(llm: LLM) -> None:
    with pytest.raises(ParamsError, match="logprob_token_ids"):
        llm.generate(PROMPT, SamplingParams(max_tokens=1, logprobs=0, logprob_token_ids=[259]))


def test_asking_again_finds_the_beginning_in_the_cache(llm: LLM) -> None:
    ask = NextToken(llm)
    shared = [token % 250 + 3 for token in range(200)]
    prompts = [[*shared, token] for token in (7, 9, 11)]
    first = ask(prompts, [NAMED] * 3)
    engine = ask._engine
    assert engine is not None
    assert engine.counts.n_found_tokens == 2 * 192, "whole pages, by all but the first"
    again = ask(prompts, [NAMED] * 3)
    assert engine is ask._engine
    for one, other, prompt in zip(first, again, prompts, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
        with torch.inference_mode():
            row = llm.model(torch.tensor(prompt), [len(prompt)])[-1].log_softmax(-1)
        assert one == pytest.approx(row[NAMED].tolist(), abs=1e-5)
    assert ask([], []) == []
    longer = ask([[*shared, *shared[:150]]], [NAMED])
    assert len(longer[0]) == len(NAMED)
