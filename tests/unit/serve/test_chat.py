"""`/v1/chat/completions` beside what the model itself says."""

import json
from typing import Any

import httpx
import pytest

from circius.engine.params import SamplingParams
from tests.serving import MODEL, Served

ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is the mistral?"}]


def _post(client: httpx.Client, **body: Any) -> dict[str, Any]:
    response = client.post(
        "/v1/chat/completions", json={"model": MODEL, "messages": ASKED, "temperature": 0, "max_tokens": 12} | body
    )
    assert response.status_code == 200, response.text
    return dict(response.json())


def _chunks(client: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    asked = {"model": MODEL, "messages": ASKED, "temperature": 0, "max_tokens": 12, "stream": True} | body
    with client.stream("POST", "/v1/chat/completions", json=asked) as response:
        assert response.status_code == 200
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_the_answer_is_what_the_model_says_alone(served: Served, client: httpx.Client) -> None:
    body = _post(client)
    [alone] = served.state.llm.chat(ASKED, SamplingParams.greedy(max_tokens=12))
    message = body["choices"][0]["message"]
    assert message == {"role": "assistant", "content": alone.outputs[0].text, "refusal": None}
    assert body["usage"]["prompt_tokens"] == len(alone.prompt_token_ids)


def test_streamed_deltas_join_to_the_whole(client: httpx.Client) -> None:
    whole = _post(client)["choices"][0]
    chunks = _chunks(client, stream_options={"include_usage": True})
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert (
        "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])
        == (whole["message"]["content"])
    )
    assert chunks[-2]["choices"][0]["finish_reason"] == whole["finish_reason"]
    assert chunks[-1]["usage"]["completion_tokens"] == 12
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_several_answers_at_once_each_with_its_own_stream(client: httpx.Client) -> None:
    body = {"n": 3, "temperature": 1.0, "seed": 3}
    whole = [choice["message"]["content"] for choice in _post(client, **body)["choices"]]
    streamed = ["", "", ""]
    for chunk in _chunks(client, **body):
        choice = chunk["choices"][0]
        streamed[choice["index"]] += choice["delta"].get("content", "")
    assert streamed == whole
    assert len(set(whole)) > 1


def test_log_probabilities_with_bytes(client: httpx.Client) -> None:
    entries = _post(client, logprobs=True, top_logprobs=3)["choices"][0]["logprobs"]["content"]
    assert len(entries) == 12
    for entry in entries:
        assert entry["logprob"] <= 0
        assert len(entry["top_logprobs"]) == 3
        assert entry["top_logprobs"][0]["logprob"] >= entry["top_logprobs"][1]["logprob"]
        assert all(0 <= byte < 256 for byte in entry["bytes"])


def test_the_same_seed_draws_the_same_beside_others(client: httpx.Client) -> None:
    from concurrent.futures import ThreadPoolExecutor

    alone = _post(client, temperature=1.0, seed=11)["choices"][0]["message"]["content"]
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(_post, client, temperature=1.0, seed=seed) for seed in (11, 1, 2, 3, 11, 4, 5, 11)]
        said = [future.result()["choices"][0]["message"]["content"] for future in futures]
    assert said[0] == said[4] == said[7] == alone


def test_a_message_to_go_on_with(client: httpx.Client) -> None:
    messages = [*ASKED, {"role": "assistant", "content": "It is"}]
    _post(client, messages=messages, continue_final_message=True, add_generation_prompt=False)


def test_null_is_as_good_as_nothing(client: httpx.Client) -> None:
    _post(client, stop=None, seed=None, logit_bias=None, stream=None, user="somebody", metadata={"a": "b"}, store=False)


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "messages", "role"),
        ({"messages": [{"role": "user"}]}, "messages[0]", "content is missing"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "messages[0]", "cannot speak first"),
        ({"messages": [{"role": "user", "content": "a", "name": "Bob"}]}, "messages[0]", "no place for the name"),
        ({"top_logprobs": 2}, "top_logprobs", "needs logprobs"),
        ({"max_tokens": 2, "max_completion_tokens": 3}, "max_tokens", "two names"),
        ({"add_generation_prompt": False}, "add_generation_prompt", "nothing to answer"),
        ({"store": True}, "store", "False"),
        ({"functions": []}, "functions", "use tools"),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_its_name(
    client: httpx.Client, body: dict[str, Any], param: str, said: str
) -> None:
    asked = {"model": MODEL, "messages": ASKED, "max_tokens": 4} | body
    response = client.post("/v1/chat/completions", json=asked)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert said.lower() in error["message"].lower()
    assert (error["param"] or "").startswith(param)


def test_a_found_prefix_is_told_and_changes_nothing(client: httpx.Client) -> None:
    messages = [{"role": "user", "content": "A long beginning. " * 12}]
    first = _post(client, messages=messages, cache_salt="one")
    again = _post(client, messages=messages, cache_salt="one")
    other = _post(client, messages=messages, cache_salt="two")
    cached = [body["usage"]["prompt_tokens_details"]["cached_tokens"] for body in (first, again, other)]
    assert cached[0] == cached[2] == 0
    assert cached[1] >= 128
    assert first["choices"] == again["choices"] == other["choices"]
