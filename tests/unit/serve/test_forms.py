"""Answers of a given form over HTTP, whichever field asks for it."""

import json
from typing import Any

import httpx
import pytest

from tests.serving import MODEL

SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
MESSAGES = [{"role": "user", "content": "Is it windy?"}]


def _said(client: httpx.Client, path: str = "/v1/chat/completions", **body: Any) -> str:
    asked = {"model": MODEL, "temperature": 1, "seed": 1, "max_tokens": 100} | body
    if "chat" in path:
        asked["messages"] = MESSAGES
    response = client.post(path, json=asked)
    assert response.status_code == 200, response.text
    choice = response.json()["choices"][0]
    assert choice["finish_reason"] == "stop"
    return str(choice["message"]["content"] if "chat" in path else choice["text"])


def test_a_json_schema(client: httpx.Client) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "windy", "schema": SCHEMA, "strict": True}}
    assert set(json.loads(_said(client, response_format=form))) == {"ok"}
    assert set(json.loads(_said(client, structured_outputs={"json": SCHEMA}))) == {"ok"}
    assert set(json.loads(_said(client, "/v1/completions", prompt="x", response_format=form))) == {"ok"}


def test_a_choice_and_a_regular_expression(client: httpx.Client) -> None:
    assert _said(client, structured_outputs={"choice": ["yes", "no"]}) in ("yes", "no")
    assert _said(client, structured_outputs={"regex": "[0-9]{4}"}).isdigit()


def test_plain_text_asks_for_nothing(client: httpx.Client) -> None:
    body = {"model": MODEL, "messages": MESSAGES, "max_tokens": 3, "response_format": {"type": "text"}}
    assert client.post("/v1/chat/completions", json=body).status_code == 200


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"response_format": {"type": "json_schema"}}, "response_format", "exactly if its type"),
        ({"response_format": {"type": "yaml"}}, "response_format", "json_schema"),
        (
            {"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}},
            "structured_outputs",
            "either",
        ),
        ({"structured_outputs": {}}, "structured_outputs", "got none"),
        ({"structured_outputs": {"regex": "("}}, "structured_outputs", "structured_outputs"),
        ({"structured_outputs": {"json": {"not": {}}}}, "structured_outputs", "/not"),
        ({"structured_outputs": {"choice": ["a"]}, "ignore_eos": True}, "structured_outputs", "ignore_eos"),
    ],
)
def test_what_is_no_form_is_refused(client: httpx.Client, body: dict[str, Any], param: str, said: str) -> None:
    response = client.post("/v1/chat/completions", json={"model": MODEL, "messages": MESSAGES} | body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert said in error["message"]
    assert (error["param"] or "").startswith(param)
