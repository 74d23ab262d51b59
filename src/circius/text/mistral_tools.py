"""The JSON in which Mistral's templates v2 and v3 write tools, calls and results, as mistral-common 1.13.1 does."""

from collections.abc import Sequence
from dataclasses import replace

from circius.text.message import Message
from circius.text.tools import Tool, ToolCall, json_or_text, json_text

CALLS = "[TOOL_CALLS]"
TOOLS = ("[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]")
RESULTS = ("[TOOL_RESULTS]", "[/TOOL_RESULTS]")
TOOL_MARKS = (*TOOLS, CALLS, *RESULTS)


def tools_json(tools: Sequence[Tool]) -> str:
    """The definitions: each with a description and parameters, if need be empty ones, and without `strict`."""
    return json_text([
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description or "",
                "parameters": {} if tool.parameters is None else tool.parameters,
            },
        }
        for tool in tools
    ])  # fmt: skip


def calls_json(calls: Sequence[ToolCall], *, with_ids: bool) -> str:
    """The calls of one answer; v3 has their ids.

    >>> calls_json([ToolCall("now", "{}", "abcdefgh1")], with_ids=True)
    '[{"name": "now", "arguments": {}, "id": "abcdefgh1"}]'
    """
    return json_text([
        {"name": call.name, "arguments": call.value, **({"id": call.id} if with_ids and call.id else {})}
        for call in calls
    ])  # fmt: skip


def result_json(message: Message) -> str:
    """One result as v3 has it."""
    return json_text({"content": json_or_text(message.content), "call_id": message.tool_call_id})


def named_result_json(message: Message) -> str:
    """One result as v2 has it: in a list of one, with the name of the function."""
    return json_text([{"name": message.name, "content": json_or_text(message.content)}])


def with_names(messages: Sequence[Message]) -> list[Message]:
    """The conversation with the name of the function in every result; where it was left out, its call has it."""
    made: list[Message] = []
    waiting: list[ToolCall] = []
    for message in messages:
        if message.role == "tool":
            call = next(call for call in waiting if call.id == message.tool_call_id)
            waiting.remove(call)
            made.append(replace(message, name=message.name or call.name))
        else:
            waiting = list(message.tool_calls)
            made.append(message)
    return made
