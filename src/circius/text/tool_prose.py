"""Tools in plain words, for models whose templates know nothing of them: definitions, calls and results as text."""

from collections.abc import Sequence
from dataclasses import replace

from circius.text.message import JOINT, Message, Role
from circius.text.tool_form import DESCRIBED, safe_json
from circius.text.tools import Tool, ToolCall, json_or_text

_EXAMPLE = DESCRIBED.begin + '{"name": "function name", "arguments": {"argument name": "value"}}' + DESCRIBED.end


def guide(tools: Sequence[Tool]) -> str:
    """What a system prompt says of the tools: their definitions, and how to call one."""
    definitions = "\n".join(safe_json(replace(tool, strict=None).definition["function"]) for tool in tools)
    return (
        "You can call functions. Each line here defines one; its parameters are a JSON schema of the arguments:\n"
        f"<tools>\n{definitions}\n</tools>\n\n"
        "If a function helps, answer with its call and nothing else, in exactly this form; for several calls write one "
        f"block below the other:\n{_EXAMPLE}\n\n"
        "The results come back between <tool_response> and </tool_response>. If no function helps, answer in words."
    )


def in_words(messages: Sequence[Message]) -> list[Message]:
    """The same messages, one for one: calls in the text of the assistant's, results as messages of the user's."""
    calls: dict[str | None, ToolCall] = {}
    made = []
    for message in messages:
        if message.role == "tool":
            made.append(Message("user", _result(message, calls.get(message.tool_call_id))))
            continue
        if message.role == "assistant":
            calls = {call.id: call for call in message.tool_calls}
        if not message.tool_calls:
            made.append(message)
            continue
        said = [message.content] if message.content else []
        made.append(Message("assistant", "\n".join([*said, DESCRIBED.write(message.tool_calls)])))
    return made


def joined_in_words(messages: Sequence[Message], tools: Sequence[Tool], *, takes_system: bool) -> list[Message]:
    """The conversation in words, for a template in which roles may have to alternate: results are one message with
    what the user says next, and the tools stand in the system prompt, or before what the user says first.
    """
    made: list[Message] = []
    was_result = False
    for original, own in zip(messages, in_words(messages), strict=True):
        is_result = original.role == "tool"
        if made and made[-1].role == own.role == "user" and (is_result or was_result):
            made[-1] = Message("user", JOINT.join([made[-1].content, own.content]))
        else:
            made.append(own)
        was_result = is_result
    return _with_guide(made, guide(tools), "system" if takes_system else "user") if tools else made


def _with_guide(messages: list[Message], text: str, role: Role) -> list[Message]:
    places = [place for place, message in enumerate(messages) if message.role == role]
    if not places or (role == "system" and places[0] != 0):
        return [Message(role, text), *messages]
    at = places[0]
    own = messages[at].content
    parts = [own, text] if role == "system" else [text, own]
    return [*messages[:at], Message(role, JOINT.join(part for part in parts if part)), *messages[at + 1 :]]


def _result(message: Message, call: ToolCall | None) -> str:
    name = message.name or (call.name if call else None)
    named = {} if name is None else {"name": name}
    return f"<tool_response>\n{safe_json({**named, 'content': json_or_text(message.content)})}\n</tool_response>"
