"""OpenAI's own Python client, unchanged, against our server."""

import json
from collections.abc import Iterator
from typing import Any, Literal

import pytest

from tests.serving import MODEL, Served, loader, serving, tool_loader
from tests.tool_talk import ADD, CLOCK

openai = pytest.importorskip("openai", reason="the parity tests with OpenAI's client need openai")
MESSAGES = [{"role": "user", "content": "What is the mistral?"}]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(loader(tmp_path_factory.mktemp("served")), keys=("secret-key-1",)) as own:
        yield own


@pytest.fixture
def client(served: Served) -> "Iterator[openai.OpenAI]":
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="secret-key-1", max_retries=0) as own:
        yield own
    served.idle()


def test_a_chat_with_everything(client: "openai.OpenAI") -> None:
    reply = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_completion_tokens=10, temperature=0.8, top_p=0.9, seed=3, n=2, stop=["zzz"],
        frequency_penalty=0.1, presence_penalty=0.1, logit_bias={"5": 1}, logprobs=True, top_logprobs=2, user="me",
        extra_body={"top_k": 20, "min_p": 0.01, "repetition_penalty": 1.1},
    )  # fmt: skip
    assert len(reply.choices) == 2
    assert reply.choices[0].logprobs is not None
    assert len(reply.choices[0].logprobs.content or []) == 10
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 20
    assert reply.usage.prompt_tokens_details is not None


def test_a_streamed_chat(client: "openai.OpenAI") -> None:
    whole = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=12, temperature=0)
    stream = client.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        max_tokens=12,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == whole.choices[0].message.content
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 12


def test_the_client_s_own_accumulating_stream(client: "openai.OpenAI") -> None:
    ends = {"structured_outputs": {"choice": ["cold", "warm"]}}
    with client.chat.completions.stream(model=MODEL, messages=MESSAGES, temperature=0, extra_body=ends) as stream:
        said = "".join(event.delta for event in stream if event.type == "content.delta")
        final = stream.get_final_completion()
    assert final.choices[0].message.content == said
    assert said in ("cold", "warm")


def test_a_schema_parsed_into_a_model(client: "openai.OpenAI") -> None:
    from pydantic import BaseModel

    class Wind(BaseModel):
        name: Literal["mistral", "bise"]
        is_cold: bool

    reply = client.chat.completions.parse(
        model=MODEL, messages=MESSAGES, response_format=Wind, temperature=1, seed=4, max_tokens=300
    )
    assert isinstance(reply.choices[0].message.parsed, Wind)


def test_completions_with_echo(client: "openai.OpenAI") -> None:
    reply = client.completions.create(model=MODEL, prompt="wind", echo=True, logprobs=1, max_tokens=4, temperature=0)
    assert reply.choices[0].text.startswith("wind")
    assert reply.choices[0].logprobs is not None
    assert len(reply.choices[0].logprobs.tokens or []) == reply.usage.total_tokens  # type: ignore[union-attr]
    streamed = client.completions.create(model=MODEL, prompt="wind", max_tokens=4, temperature=0, stream=True)
    assert reply.choices[0].text == "wind" + "".join(part.choices[0].text for part in streamed)


def test_models(client: "openai.OpenAI") -> None:
    assert [model.id for model in client.models.list()] == [MODEL, "alias"]
    assert client.models.retrieve("alias").id == "alias"


def test_errors_become_the_client_s_own(client: "openai.OpenAI", served: Served) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=-1)
    assert caught.value.param == "temperature"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-4", messages=MESSAGES)
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{served.url}/v1", api_key="wrong-key", max_retries=0).models.list()


def test_a_stream_that_is_closed_frees_its_place(client: "openai.OpenAI", served: Served) -> None:
    stream = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=300, stream=True)
    next(iter(stream))
    stream.close()
    served.idle()


def test_responses(client: "openai.OpenAI") -> None:
    reply = client.responses.create(model=MODEL, input="What is the mistral?", max_output_tokens=8, temperature=0)
    assert reply.status == "incomplete"
    with client.responses.stream(
        model=MODEL, input="What is the mistral?", max_output_tokens=8, temperature=0
    ) as stream:
        said = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
    assert said == reply.output_text


@pytest.fixture(scope="module")
def tooled() -> "Iterator[openai.OpenAI]":
    with serving(tool_loader()) as own:
        with openai.OpenAI(base_url=f"{own.url}/v1", api_key="none", max_retries=0) as client:
            yield client
        own.idle()


def test_tools_there_and_back(tooled: "openai.OpenAI") -> None:
    tools = [ADD.definition, CLOCK.definition]
    asked: list[Any] = list(MESSAGES)
    reply = tooled.chat.completions.create(
        model=MODEL, messages=asked, tools=tools, tool_choice="required", seed=1, max_tokens=200
    )
    choice = reply.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    asked.append(choice.message)
    for call in choice.message.tool_calls or []:
        assert call.type == "function"
        assert isinstance(json.loads(call.function.arguments), dict)
        asked.append({"role": "tool", "tool_call_id": call.id, "content": "12"})
    answer = tooled.chat.completions.create(model=MODEL, messages=asked, tools=tools, max_tokens=4, temperature=0)
    assert answer.usage is not None
    assert reply.usage is not None
    assert answer.usage.prompt_tokens > reply.usage.prompt_tokens
    named = tooled.chat.completions.create(
        model=MODEL, messages=MESSAGES, tools=tools, seed=1, max_tokens=60,
        tool_choice={"type": "function", "function": {"name": "now"}}, parallel_tool_calls=False,
    )  # fmt: skip
    assert [call.function.name for call in named.choices[0].message.tool_calls or []] == ["now"]


def test_tools_parsed_into_models_and_streamed(tooled: "openai.OpenAI") -> None:
    from pydantic import BaseModel

    class Sky(BaseModel):
        is_blue: bool
        wind: Literal["mistral", "bise"]

    options: dict[str, Any] = {"model": MODEL, "tools": [openai.pydantic_function_tool(Sky)], "seed": 1}
    options |= {"tool_choice": "required", "max_tokens": 300}
    parsed = tooled.chat.completions.parse(messages=MESSAGES, **options).choices[0].message
    assert parsed.tool_calls
    assert all(isinstance(call.function.parsed_arguments, Sky) for call in parsed.tool_calls)
    with tooled.chat.completions.stream(messages=MESSAGES, **options) as stream:
        pieces = [e for e in stream if e.type == "tool_calls.function.arguments.delta"]
        final = stream.get_final_completion().choices[0]
    assert final.finish_reason == "tool_calls"
    said = [(call.function.name, call.function.arguments) for call in final.message.tool_calls or []]
    assert said == [(call.function.name, call.function.arguments) for call in parsed.tool_calls]
    assert "".join(piece.arguments_delta for piece in pieces) == "".join(arguments for _, arguments in said)
    # What the helpers have made goes back as it is.
    talk: list[Any] = [*MESSAGES, final.message]
    talk += [{"role": "tool", "tool_call_id": c.id, "content": "yes"} for c in final.message.tool_calls or []]
    tooled.chat.completions.create(model=MODEL, messages=talk, max_tokens=2)


def test_responses_with_functions(tooled: "openai.OpenAI") -> None:
    tools: list[Any] = [{"type": "function", **ADD.definition["function"]}]
    asked: list[Any] = [{"role": "user", "content": "Two and two?"}]
    options: dict[str, Any] = {"model": MODEL, "tools": tools, "tool_choice": "required", "max_output_tokens": 200}
    options["parallel_tool_calls"] = False
    reply = tooled.responses.create(input=asked, **options)
    calls = [item for item in reply.output if item.type == "function_call"]
    assert reply.status == "completed"
    assert calls
    asked += reply.output
    asked += [{"type": "function_call_output", "call_id": call.call_id, "output": "4"} for call in calls]
    assert tooled.responses.create(input=asked, **options | {"tool_choice": "none"}, temperature=0).output_text
    with tooled.responses.stream(input=asked[:1], **options) as stream:
        pieces = [event for event in stream if event.type == "response.function_call_arguments.delta"]
        final = stream.get_final_response()
    said = [item.arguments for item in final.output if item.type == "function_call"]
    assert "".join(piece.delta for piece in pieces) == "".join(said)
    assert all(set(json.loads(arguments)) == {"a", "b"} for arguments in said)


def test_errors_about_tools(tooled: "openai.OpenAI") -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        tooled.chat.completions.create(model=MODEL, messages=MESSAGES, tool_choice="required")
    assert caught.value.param == "tool_choice"


def test_embeddings(client: "openai.OpenAI") -> None:
    reply = client.embeddings.create(model=MODEL, input=["wind", "rain"])
    assert len(reply.data) == 2
    assert sum(x * x for x in reply.data[0].embedding) == pytest.approx(1, abs=1e-4)
