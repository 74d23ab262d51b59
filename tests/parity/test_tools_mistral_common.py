"""Tools, calls and results in the templates v2 and v3 against mistral-common, id for id."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from mistral_common.protocol.instruct.messages import AssistantMessage, SystemMessage, ToolMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.protocol.instruct.tool_calls import FunctionCall
from mistral_common.protocol.instruct.tool_calls import Tool as TheirTool
from mistral_common.protocol.instruct.tool_calls import ToolCall as TheirCall
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from circius.text import ChatTemplate, Message, load_chat_template
from circius.text.tools import Tool, ToolCall
from tests.tool_talk import TOOLS, exchange, tool_conversations, tools
from tests.vocabularies import FILES, any_text, mistral

PEERS = {"v2": MistralTokenizer.v2(), "v3": MistralTokenizer.v3()}
ONE = ToolCall("get_weather", '{"city":"Paris","unit" : "kelvin"}', "abcdefgh1")
TWO = ToolCall("add", '{"a": 1, "b": 2.50, "é": "\\u00e9\\n"}', "abcdefgh2")


def theirs(version: str, messages: Sequence[Message], given: Sequence[Tool]) -> list[int]:
    def convert(message: Message) -> UserMessage | AssistantMessage | SystemMessage | ToolMessage:
        if message.role == "user":
            return UserMessage(content=message.content)
        if message.role == "system":
            return SystemMessage(content=message.content)
        if message.role == "tool":
            return ToolMessage(content=message.content, tool_call_id=message.tool_call_id, name=message.name)
        calls = [
            TheirCall(id=call.id or "null", function=FunctionCall(name=call.name, arguments=call.arguments))
            for call in message.tool_calls
        ]
        return AssistantMessage(content=message.content or None, tool_calls=calls or None)

    request = ChatCompletionRequest(
        messages=[convert(message) for message in messages],
        tools=[TheirTool.from_openai(tool.definition) for tool in given] or None,
    )
    tokens: list[int] = PEERS[version].encode_chat_completion(request).tokens
    return tokens


def template(version: str, injection: str = "escape") -> ChatTemplate:
    return load_chat_template(FILES[version], mistral(version), injection=injection)


def user(text: str) -> Message:
    return Message("user", text)


FIXED = {
    "tools stand before the last user": [user("a"), Message("assistant", "b"), user("c")],
    "with a system prompt": [Message("system", "Be brief."), user("a"), Message("assistant", "b"), user("c")],
    "a call and its result": [user("Weather?"), *exchange([ONE], [ONE], ['{"t": 12.0, "é": [1,2]}'])],
    "a result that is no JSON": [user("Weather?"), *exchange([ONE], [ONE], ["cold & <dry>\n"])],
    "a result that is a number": [user("Weather?"), *exchange([ONE], [ONE], ["12"])],
    "an empty result": [user("Weather?"), *exchange([ONE], [ONE], [""])],
    "answered": [user("Weather?"), *exchange([ONE], [ONE], ["12"]), Message("assistant", "Cold. "), user("Thanks")],
    "asked at once": [user("Weather?"), *exchange([ONE], [ONE], ["12"]), user("And?"), user("Well?")],
    "a second call": [user("Weather?"), *exchange([ONE], [ONE], ["12"]), *exchange([TWO], [TWO], ["3.5"])],
    "arguments that are no JSON": [user("a"), *exchange([ToolCall("f", "a=1", "abcdefgh3")], [], []), user("b")],
}
SEVERAL = [user("Both?"), *exchange([ONE, TWO], [TWO, ONE], ["3.5", "[]"])]


@pytest.mark.parametrize("version", PEERS)
@pytest.mark.parametrize("given_tools", [(), TOOLS], ids=["no tools", "tools"])
@pytest.mark.parametrize("name", FIXED)
def test_fixed_conversations(version: str, name: str, given_tools: Sequence[Tool]) -> None:
    messages = FIXED[name]
    if name.startswith("arguments"):
        messages = [*messages[:2], Message("tool", "x", (), "abcdefgh3", "f"), messages[-1]]
    assert template(version).encode(messages, tools=given_tools) == theirs(version, messages, given_tools)


def test_several_calls_and_results_in_their_own_order() -> None:
    assert template("v3").encode(SEVERAL, tools=TOOLS) == theirs("v3", SEVERAL, TOOLS)


@settings(max_examples=60, deadline=None)
@given(messages=tool_conversations(any_text), own=tools)
def test_random_conversations_of_v3(messages: list[Message], own: list[Tool]) -> None:
    if "▁" not in _everything(messages, own):
        assert template("v3").encode(messages, tools=own) == theirs("v3", messages, own)
    assert template("v3", "allow").encode(messages, tools=own) == theirs("v3", messages, own)


@settings(max_examples=60, deadline=None)
@given(messages=tool_conversations(any_text, most_calls=1), own=tools)
def test_random_conversations_of_v2(messages: list[Message], own: list[Tool]) -> None:
    if "▁" not in _everything(messages, own):
        assert template("v2").encode(messages, tools=own) == theirs("v2", messages, own)


def _everything(messages: Sequence[Message], own: Sequence[Tool]) -> str:
    return json.dumps([[text for message in messages for text in message.texts], [tool.definition for tool in own]],
                      ensure_ascii=False)  # fmt: skip
