"""Tools over HTTP: calls and their results in chats, responses, batches of tokens, and everything that is refused."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest

from tests.serving import MODEL, Served, serving, tool_loader
from tests.tool_talk import ADD, CLOCK, TOOLS, WEATHER

pytest.importorskip("llguidance", reason="calls are held to their form by llguidance")

ASKED = [{"role": "user", "content": "What is the weather?"}]
DEFINED = [tool.definition for tool in TOOLS]
BEGINS = {"5": 100}
"""A bias by which a random model calls something at once: 5 is [TOOL_CALLS]."""


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(tool_loader()) as own:
        yield own


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=60) as own:
        yield own
    served.idle()


def _post(client: httpx.Client, path: str = "/v1/chat/completions", status: int = 200, **body: Any) -> dict[str, Any]:
    own = {"messages": ASKED, "tools": DEFINED, "seed": 1, "max_tokens": 300} if "chat" in path else {}
    response = client.post(path, json={"model": MODEL} | own | body)
    assert response.status_code == status, response.text
    return dict(response.json())


def _chunks(client: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    asked = {"model": MODEL, "messages": ASKED, "tools": DEFINED, "seed": 1, "max_tokens": 300, "stream": True} | body
    with client.stream("POST", "/v1/chat/completions", json=asked) as response:
        assert response.status_code == 200, response.read()
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def _joined(chunks: list[dict[str, Any]], index: int = 0) -> dict[str, Any]:
    """The choice that the pieces of a stream make, ids left out: they are drawn anew each time."""
    choice: dict[str, Any] = {"content": None, "calls": [], "finish_reason": None, "logprobs": []}
    for chunk in chunks:
        for own in chunk["choices"]:
            if own["index"] != index:
                continue
            delta = own["delta"]
            if delta.get("content") is not None:
                choice["content"] = (choice["content"] or "") + delta["content"]
            for piece in delta.get("tool_calls", ()):
                if "id" in piece:
                    assert piece["index"] == len(choice["calls"])
                    assert piece["type"] == "function"
                    assert len(piece["id"]) == 9
                    choice["calls"].append({"name": piece["function"]["name"], "arguments": ""})
                choice["calls"][piece["index"]]["arguments"] += piece["function"]["arguments"]
            choice["finish_reason"] = own["finish_reason"] or choice["finish_reason"]
            choice["logprobs"] += (own["logprobs"] or {}).get("content", [])
    return choice


def _plain(choice: dict[str, Any]) -> dict[str, Any]:
    calls = choice["message"].get("tool_calls", [])
    return {
        "content": choice["message"]["content"],
        "calls": [call["function"] for call in calls],
        "finish_reason": choice["finish_reason"],
        "logprobs": (choice["logprobs"] or {}).get("content", []),
    }


@pytest.mark.parametrize(
    "body",
    [
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function", "function": {"name": "add"}}},
        {"tool_choice": "auto", "logit_bias": BEGINS},
        {"logit_bias": BEGINS, "parallel_tool_calls": False},
        {"tool_choice": "required", "n": 3, "seed": 5},
        {"tool_choice": "required", "logprobs": True, "top_logprobs": 2},
        {"tool_choice": "required", "max_tokens": 17},
        {"tool_choice": "required", "max_tokens": 4},
        {"tool_choice": "none", "max_tokens": 10, "temperature": 0},
        {"max_tokens": 10, "temperature": 0, "logprobs": True},
        {"response_format": {"type": "json_object"}, "logit_bias": BEGINS},
    ],
    ids=str,
)
def test_a_stream_joins_to_the_whole(client: httpx.Client, body: dict[str, Any]) -> None:
    whole = [_plain(choice) for choice in _post(client, **body)["choices"]]
    chunks = _chunks(client, **body)
    streamed = [_joined(chunks, index) for index in range(len(whole))]
    for own, other in zip(streamed, whole, strict=True):
        told, expected = own.pop("logprobs"), other.pop("logprobs")
        assert [entry["bytes"] for entry in told] == [entry["bytes"] for entry in expected]
        # The second prompt is found in the cache, and plain weights do not sum to the last bit alike then.
        assert [e["logprob"] for e in told] == pytest.approx([e["logprob"] for e in expected], abs=1e-4)
    assert streamed == whole


def test_calls_fit_their_schemas_and_say_so(client: httpx.Client) -> None:
    for seed in range(4):
        choice = _post(client, tool_choice="required", seed=seed)["choices"][0]
        assert choice["finish_reason"] == "tool_calls"
        assert choice["message"]["content"] is None
        for call in choice["message"]["tool_calls"]:
            assert set(call) == {"id", "type", "function"}
            tool = next(tool for tool in TOOLS if tool.name == call["function"]["name"])
            jsonschema.validate(json.loads(call["function"]["arguments"]), dict(tool.schema))


def test_an_answer_without_calls_has_none(client: httpx.Client) -> None:
    message = _post(client, max_tokens=5, temperature=0)["choices"][0]["message"]
    assert set(message) == {"role", "content", "refusal"}


def test_log_probabilities_stand_for_every_token(client: httpx.Client) -> None:
    body = _post(client, tool_choice="required", logprobs=True)
    entries = body["choices"][0]["logprobs"]["content"]
    assert len(entries) == body["usage"]["completion_tokens"]
    assert entries[0]["token"] == "[TOOL_CALLS]"


def test_a_round_trip_is_what_the_template_says(served: Served, client: httpx.Client) -> None:
    """The prompt of the second question, and foreign ids that become nine characters in it."""
    message = _post(client, tool_choice="required")["choices"][0]["message"]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": '{"t": 12}'} for call in message["tool_calls"]]
    talk = [*ASKED, message, *results]
    tokens = _post(client, "/tokenize", messages=talk, tools=DEFINED)["tokens"]
    template = served.state.llm.chat_template
    assert template is not None
    assert tokens == template.encode([*ASKED, {**message, "refusal": None}, *results], tools=TOOLS)
    assert _post(client, messages=talk, max_tokens=3)["usage"]["prompt_tokens"] == len(tokens)
    foreign = json.loads(json.dumps(talk).replace(message["tool_calls"][0]["id"], "call_" + "x" * 24))
    again = _post(client, "/tokenize", messages=foreign, tools=DEFINED)["tokens"]
    assert len(again) < len(tokens) + 12
    assert again != tokens
    assert _post(client, "/tokenize", messages=foreign, tools=DEFINED)["tokens"] == again


def test_the_prompt_tells_of_the_tools_only_if_they_may_be_called(client: httpx.Client) -> None:
    plain = _post(client, "/tokenize", messages=ASKED)["count"]
    counts = {
        choice: _post(client, tool_choice=choice, max_tokens=1)["usage"]["prompt_tokens"] for choice in ("auto", "none")
    }
    assert counts["none"] == plain
    assert counts["auto"] > plain + 100


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "function"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "required"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0]", "function.name must be"),
        ({"tools": [{"type": "function", "function": {"name": "f", "x": 1}}]}, "tools[0].function.x", "not known"),
        ({"tools": [CLOCK.definition] * 2}, "tools[1]", "there is a 'now' already"),
        ({"tools": [CLOCK.definition] * 129}, "tools", "at most 128"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "description": "x" * 300_000}}]},
            "tools",
            "bytes together",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "strict": True, "parameters": {"not": {}}}}]},
            "tools",
            "/not: this keyword cannot be honoured",
        ),
        ({"tool_choice": "any"}, "tool_choice", "auto"),
        ({"tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice", "names the function 'g'"),
        ({"tools": None, "tool_choice": "required"}, "tool_choice", "needs tools"),
        ({"parallel_tool_calls": "yes"}, "parallel_tool_calls", "boolean"),
        ({"tool_choice": "required", "response_format": {"type": "json_object"}}, "tool_choice", "wants a call"),
        ({"structured_outputs": {"regex": "a"}}, "tools", "JSON only"),
        ({"min_tokens": 2}, "tools", "min_tokens"),
        ({"functions": [{"name": "f"}]}, "functions", "use tools"),
        ({"function_call": "auto"}, "function_call", "use tools"),
        ({"messages": [*ASKED, {"role": "assistant"}]}, "messages[1].content", "content is missing"),
        (
            {"messages": [{"role": "assistant", "function_call": {"name": "f"}}]},
            "messages[0].function_call",
            "use tools",
        ),
        ({"messages": [*ASKED, {"role": "tool", "content": "x"}]}, "messages[1]", "must follow the message that"),
        (
            {"messages": [*ASKED, {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f"}}]}]},
            "messages[1].tool_calls[0].function.arguments",
            "required",
        ),
        (
            {
                "messages": [
                    *ASKED,
                    {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]},
                    *ASKED,
                ]
            },
            "messages[1]",
            "must follow for each of its calls",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused(client: httpx.Client, body: dict[str, Any], param: str, said: str) -> None:
    error = _post(client, status=400, **body)["error"]
    assert said in error["message"]
    assert error["param"] == param


def test_null_is_as_good_as_nothing(client: httpx.Client) -> None:
    message = {"role": "assistant", "content": "Hi", "tool_calls": None, "function_call": None, "audio": None}
    talk = [*ASKED, message | {"annotations": [], "refusal": None}, *ASKED]
    _post(client, messages=talk, tools=None, tool_choice=None, functions=None, function_call=None, max_tokens=2)
    _post(client, tools=[], tool_choice="auto", max_tokens=2)


def test_tools_of_a_prompt_that_is_no_conversation(client: httpx.Client) -> None:
    assert _post(client, "/tokenize", 400, prompt="a", tools=DEFINED)["error"]["param"] == "tools"


FLAT = [{"type": "function", **tool.definition["function"]} for tool in TOOLS]


def _response(client: httpx.Client, status: int = 200, **body: Any) -> dict[str, Any]:
    return _post(client, "/v1/responses", status, **{"input": "What is the weather?", "tools": FLAT} | body)


def test_a_response_with_calls_and_their_results(served: Served, client: httpx.Client) -> None:
    first = _response(client, tool_choice="required")
    assert (first["status"], first["tool_choice"]) == ("completed", "required")
    assert [tool["name"] for tool in first["tools"]] == [tool.name for tool in TOOLS]
    assert {item["type"] for item in first["output"]} == {"function_call"}
    for item in first["output"]:
        assert (item["status"], len(item["call_id"])) == ("completed", 9)
        json.loads(item["arguments"])
    results = [{"type": "function_call_output", "call_id": item["call_id"], "output": "12"} for item in first["output"]]
    talk = [{"role": "user", "content": "What is the weather?"}, *first["output"], *results]
    second = _response(client, input=talk, tools=[], max_output_tokens=3, temperature=0)
    calls = [
        {"id": item["call_id"], "function": {"name": item["name"], "arguments": item["arguments"]}}
        for item in first["output"]
    ]
    chat = [*ASKED, {"role": "assistant", "tool_calls": calls}]
    chat += [{"role": "tool", "tool_call_id": call["id"], "content": "12"} for call in calls]
    template = served.state.llm.chat_template
    assert template is not None
    assert second["usage"]["input_tokens"] == len(template.encode(chat))
    assert second["output"][0]["type"] == "message"


def test_words_and_calls_of_one_answer_are_one_message(client: httpx.Client) -> None:
    call = {"type": "function_call", "call_id": "a", "name": "now", "arguments": "{}"}
    word = {"role": "assistant", "content": "Wait."}
    result = {"type": "function_call_output", "call_id": "a", "output": [{"type": "input_text", "text": "12"}]}
    user = {"role": "user", "content": "Hi"}
    counts = [
        _response(client, input=talk, max_output_tokens=1)["usage"]["input_tokens"]
        for talk in ([user, word, call, result], [user, call, word, result])
    ]
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    "body",
    [
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function", "name": "get_weather"}, "parallel_tool_calls": False},
        {"tool_choice": "required", "max_output_tokens": 9},
        {"tool_choice": "none", "max_output_tokens": 6, "temperature": 0},
        {"max_output_tokens": 6, "temperature": 0},
    ],
    ids=str,
)
def test_the_events_of_a_response_join_to_its_items(client: httpx.Client, body: dict[str, Any]) -> None:
    asked = {"model": MODEL, "input": "What is the weather?", "tools": FLAT, "stream": True} | body
    with client.stream("POST", "/v1/responses", json=asked) as response:
        events = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: ")]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    items: list[dict[str, Any]] = []
    texts: dict[str, str] = {}
    for event in events:
        if event["type"] == "response.output_item.added":
            assert event["output_index"] == len(items)
            items.append(event["item"])
            texts[event["item"]["id"]] = ""
        elif event["type"].endswith(".delta"):
            assert event["item_id"] == items[event["output_index"]]["id"]
            texts[event["item_id"]] += event["delta"]
        elif event["type"] == "response.output_item.done":
            items[event["output_index"]] = event["item"]
    whole = events[-1]["response"]
    assert whole["output"] == items
    assert items
    for item in items:
        said = item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"]
        assert texts[item["id"]] == said
    is_cut = body.get("max_output_tokens") is not None
    assert events[-1]["type"] == ("response.incomplete" if is_cut else "response.completed")
    assert items[-1]["status"] == ("incomplete" if is_cut else "completed")
    assert all(item["status"] == "completed" for item in items[:-1])


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0]", "function"),
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0]", "function.name"),
        ({"tool_choice": {"type": "function", "name": "g"}}, "tool_choice", "names the function"),
        ({"input": [{"type": "function_call_output", "call_id": "a", "output": "x"}]}, "input", "cannot be first"),
        ({"input": [{"type": "function_call", "call_id": "a"}]}, "input[0].name", "required"),
        ({"input": [{"type": "reasoning", "id": "a"}]}, "input[0]", "must be message, function_call"),
    ],
)
def test_refused_responses(client: httpx.Client, body: dict[str, Any], param: str, said: str) -> None:
    error = _response(client, 400, **body)["error"]
    assert said in error["message"]
    assert error["param"].startswith(param)


def test_a_model_whose_template_knows_no_tools() -> None:
    with serving(tool_loader("v1")) as own, httpx.Client(base_url=own.url, timeout=60) as client:
        body = {"tools": [WEATHER.definition, ADD.definition], "tool_choice": "required", "parallel_tool_calls": False}
        whole = _plain(_post(client, **body)["choices"][0])
        assert _joined(_chunks(client, **body)) == whole
        assert whole["content"] is None
        assert len(whole["calls"]) == 1
        own.idle()
