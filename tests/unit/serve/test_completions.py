"""`/v1/completions` beside what the model itself says."""

from typing import Any

import httpx
import pytest

from circius.engine.params import SamplingParams
from tests.serving import MODEL, Served

GREEDY = {"model": MODEL, "temperature": 0}


def _post(client: httpx.Client, **body: Any) -> dict[str, Any]:
    response = client.post("/v1/completions", json=GREEDY | body)
    assert response.status_code == 200, response.text
    return dict(response.json())


def _error(client: httpx.Client, status: int, **body: Any) -> dict[str, Any]:
    response = client.post("/v1/completions", json={"model": MODEL, "prompt": "a"} | body)
    assert response.status_code == status, response.text
    return dict(response.json()["error"])


def test_the_text_is_what_the_model_says_alone(served: Served, client: httpx.Client) -> None:
    body = _post(client, prompt="The wind", max_tokens=20)
    [alone] = served.state.llm.generate("The wind", SamplingParams.greedy(max_tokens=20))
    [choice] = body["choices"]
    assert choice["text"] == alone.outputs[0].text
    assert choice["finish_reason"] == alone.outputs[0].finish_reason
    assert body["usage"]["prompt_tokens"] == len(alone.prompt_token_ids)
    assert body["usage"]["completion_tokens"] == len(alone.outputs[0].token_ids)
    assert body["object"] == "text_completion"
    assert body["model"] == MODEL


def test_several_prompts_and_answers_are_numbered_prompt_by_prompt(client: httpx.Client) -> None:
    body = _post(client, prompt=["a", "b"], n=2, temperature=1, seed=7, max_tokens=5)
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    single = [_post(client, prompt=each, n=2, temperature=1, seed=7, max_tokens=5)["choices"] for each in "ab"]
    assert [choice["text"] for choice in body["choices"]] == [c["text"] for own in single for c in own]


@pytest.mark.parametrize("prompt", ["ab", [97, 98, 99], ["a", "b"], [[97], [98, 99]]])
def test_every_form_of_a_prompt(client: httpx.Client, prompt: Any) -> None:
    n_prompts = len(prompt) if isinstance(prompt, list) and not isinstance(prompt[0], int) else 1
    assert len(_post(client, prompt=prompt, max_tokens=2)["choices"]) == n_prompts


def test_echo_scores_the_prompt(served: Served, client: httpx.Client) -> None:
    body = _post(client, prompt="wind", max_tokens=0, echo=True, logprobs=2)
    logprobs = body["choices"][0]["logprobs"]
    assert body["choices"][0]["text"] == "wind"
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"][0] is None
    assert body["usage"]["completion_tokens"] == 0
    llm = served.state.llm
    assert llm.tokenizer is not None
    score = llm.score("wind")
    n = score.n_tokens
    assert sum(logprobs["token_logprobs"][-n:]) == pytest.approx(-score.total_nll, abs=1e-4)


def test_offsets_are_places_of_the_text(client: httpx.Client) -> None:
    choice = _post(client, prompt="Über", max_tokens=9, echo=True, logprobs=0, ignore_eos=True)["choices"][0]
    logprobs = choice["logprobs"]
    assert logprobs["text_offset"][0] == 0
    assert logprobs["text_offset"] == sorted(logprobs["text_offset"])
    b_at = logprobs["tokens"].index("b")
    assert choice["text"][logprobs["text_offset"][b_at]] == "b"


def test_streamed_parts_join_to_the_whole(client: httpx.Client) -> None:
    import json

    asked = GREEDY | {"prompt": "Über", "max_tokens": 30, "logprobs": 1}
    whole = client.post("/v1/completions", json=asked).json()
    asked |= {"stream": True, "stream_options": {"include_usage": True}}
    with client.stream("POST", "/v1/completions", json=asked) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    parts = [json.loads(line) for line in lines[:-1]]
    assert parts[-1]["choices"] == []
    assert parts[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    choices = [part["choices"][0] for part in parts[:-1]]
    assert "".join(choice["text"] for choice in choices) == whole["choices"][0]["text"]
    assert choices[-1]["finish_reason"] == whole["choices"][0]["finish_reason"]
    said = [value for choice in choices if choice["logprobs"] for value in choice["logprobs"]["token_logprobs"]]
    assert said == pytest.approx(whole["choices"][0]["logprobs"]["token_logprobs"], abs=1e-5)


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"temperature": -1}, "temperature", "0 or more, got -1"),
        ({"top_p": 2}, "top_p", "at most 1, got 2"),
        ({"n": 2, "temperature": 0}, "n", "n must be 1 when temperature is 0"),
        ({"n": 0}, "n", "greater than or equal to 1"),
        ({"logprobs": 6}, "logprobs", "less than or equal to 5"),
        ({"best_of": 4}, "best_of", "best_of must be left out"),
        ({"suffix": "z"}, "suffix", "cannot fill in"),
        ({"max_tokens": 0}, "max_tokens", "1 or more, or 0 with echo"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "set stream to true"),
        ({"echo": True, "stream": True}, "echo", "do not go together"),
        ({"temprature": 1}, "temprature", "nothing is ignored"),
        ({"prompt": []}, "prompt", "prompt"),
        ({"prompt": [99999]}, "prompt", "0 to 258"),
        ({"prompt": "a" * 500}, "prompt", "context of 400"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "token ids"),
        ({"logit_bias": {"9999": 1}}, "logit_bias", "0 to 258"),
        ({"max_tokens": "many"}, "max_tokens", "integer"),
        ({"seed": 2**70}, "seed", "less than or equal"),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_its_name(
    client: httpx.Client, body: dict[str, Any], param: str, said: str
) -> None:
    error = _error(client, 400, **body)
    assert said in error["message"]
    assert (error["param"] or "").startswith(param)
    assert error["type"] == "invalid_request_error"


def test_a_prompt_over_the_limit_says_both_numbers(client: httpx.Client) -> None:
    error = _error(client, 400, prompt="a" * 500)
    assert error["code"] == "context_length_exceeded"
    assert "400" in error["message"]
    assert "50" in error["message"]


def test_another_model_is_not_here(client: httpx.Client) -> None:
    error = _error(client, 404, model="gpt-4")
    assert error["code"] == "model_not_found"
    assert "tiny, alias" in error["message"]


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b'"a"', b'{"model": "tiny"}', b"\xff\xfe"])
def test_a_body_that_is_none(client: httpx.Client, raw: bytes) -> None:
    response = client.post("/v1/completions", content=raw, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["message"]


def test_stop_texts_and_stop_tokens(served: Served, client: httpx.Client) -> None:
    whole = _post(client, prompt="wind", max_tokens=30, ignore_eos=True)["choices"][0]["text"]
    stop = whole[5:7]
    choice = _post(client, prompt="wind", max_tokens=30, ignore_eos=True, stop=[stop])["choices"][0]
    assert choice["text"] == whole[: whole.index(stop)]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", stop)
