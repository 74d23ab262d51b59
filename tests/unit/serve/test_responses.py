"""`/v1/responses` and `/v1/embeddings` beside what the model itself says."""

import base64
import json
import math
import struct
from typing import Any

import httpx
import pytest
import torch

from circius.engine.embed import Embedder
from circius.engine.params import SamplingParams
from tests.serving import MODEL, Served


def _post(client: httpx.Client, path: str, status: int = 200, **body: Any) -> dict[str, Any]:
    response = client.post(path, json={"model": MODEL} | body)
    assert response.status_code == status, response.text
    return dict(response.json())


def test_a_response_is_the_chat_s_answer(served: Served, client: httpx.Client) -> None:
    body = _post(
        client, "/v1/responses", input="What is the mistral?", instructions="Be brief.", temperature=0,
        max_output_tokens=9,
    )  # fmt: skip
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is the mistral?"}]
    [alone] = served.state.llm.chat(messages, SamplingParams.greedy(max_tokens=9))
    assert body["output"][0]["content"][0]["text"] == alone.outputs[0].text
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert body["usage"]["output_tokens"] == 9
    assert body["store"] is False


def test_an_earlier_answer_is_taken_as_it_came(client: httpx.Client) -> None:
    first = _post(client, "/v1/responses", input="Hi", temperature=0, max_output_tokens=4)
    _post(
        client,
        "/v1/responses",
        input=[{"role": "user", "content": "Hi"}, first["output"][0], {"role": "user", "content": "And?"}],
        max_output_tokens=4,
    )


def test_streamed_events_are_numbered_and_join_to_the_whole(client: httpx.Client) -> None:
    asked = {"input": "Hi", "temperature": 0, "max_output_tokens": 12}
    whole = _post(client, "/v1/responses", **asked)["output"][0]["content"][0]["text"]
    with client.stream("POST", "/v1/responses", json={"model": MODEL, "stream": True} | asked) as response:
        lines = list(response.iter_lines())
    names = [line[7:] for line in lines if line.startswith("event: ")]
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert [event["type"] for event in events] == names
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta") == whole
    assert names[-1] == "response.incomplete"
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == whole


def test_a_format(client: httpx.Client) -> None:
    form = {"type": "json_schema", "name": "n", "schema": {"enum": ["cold", "warm"]}}
    body = _post(client, "/v1/responses", input="Hi", text={"format": form})
    assert body["status"] == "completed"
    assert json.loads(body["output"][0]["content"][0]["text"]) in ("cold", "warm")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"store": True}, "store"),
        ({"tools": [{}]}, "tools"),
        ({"truncation": "auto"}, "truncation"),
        ({"input": []}, "input"),
        ({"text": {"format": {"type": "json_schema"}}}, "text"),
        ({"temperature": -1}, "temperature"),
    ],
)
def test_what_cannot_be_honoured_is_refused(client: httpx.Client, body: dict[str, Any], param: str) -> None:
    error = _post(client, "/v1/responses", 400, **{"input": "Hi"} | body)["error"]
    assert error["param"].startswith(param)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_vectors_are_the_hidden_states_pooled(served: Served, client: httpx.Client, pooling: str) -> None:
    llm = served.state.llm
    text = "A wind that blows from the north, cold and dry, for days. " * 3
    body = _post(client, "/v1/embeddings", input=[text, "b"], pooling=pooling)
    ids = list(llm.asker.completion(text, SamplingParams(max_tokens=1)).prompt_ids)
    with torch.inference_mode():
        hidden = llm.model.hidden(torch.tensor(ids), [len(ids)]).double()
    expected = torch.nn.functional.normalize(hidden.mean(0) if pooling == "mean" else hidden[-1], dim=0)
    assert body["data"][0]["embedding"] == pytest.approx(expected.tolist(), abs=1e-4)
    assert math.hypot(*body["data"][1]["embedding"]) == pytest.approx(1, abs=1e-5)
    assert body["usage"]["prompt_tokens"] == len(ids) + 2


def test_vectors_in_base64(client: httpx.Client) -> None:
    plain = _post(client, "/v1/embeddings", input="wind")["data"][0]["embedding"]
    raw = base64.b64decode(
        _post(client, "/v1/embeddings", input="wind", encoding_format="base64")["data"][0]["embedding"]
    )
    assert struct.unpack(f"<{len(plain)}f", raw) == pytest.approx(plain)


def test_what_no_vector_can_be_made_of(client: httpx.Client) -> None:
    assert _post(client, "/v1/embeddings", 400, input="a" * 900)["error"]["code"] == "context_length_exceeded"
    assert _post(client, "/v1/embeddings", 400, input="a", dimensions=5)["error"]["param"] == "dimensions"
    assert _post(client, "/v1/embeddings", 400, input=[])["error"]["param"].startswith("input")


def test_chunks_change_no_vector(served: Served) -> None:
    model, ids = served.state.llm.model, [3 + index % 90 for index in range(150)]
    vectors = []
    for chunk_size in (7, 64, 500):
        embedder = Embedder(model, ids, pooling="mean", chunk_size=chunk_size)
        while not embedder.is_done:
            embedder.read_chunk()
        vectors.append(embedder.vector())
    for vector in vectors[1:]:
        torch.testing.assert_close(vector, vectors[0], atol=1e-5, rtol=0)
