"""Conversations with tools, to try templates on."""

import json
from collections.abc import Sequence

from hypothesis import strategies as st

from circius.text import Message
from circius.text.tools import Tool, ToolCall
from tests.vocabularies import any_text

WEATHER = Tool(
    name="get_weather",
    description="The weather of a place now.",
    parameters={
        "type": "object",
        "properties": {
            "city": {"type": "string", "enum": ["Paris", "Nîmes"]},
            "unit": {"type": "string", "enum": ["celsius", "kelvin"]},
        },
        "required": ["city"],
        "additionalProperties": False,
    },
)
CLOCK = Tool(name="now")
ADD = Tool(
    name="add",
    description="The sum.",
    parameters={
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}, "b": {"$ref": "#/$defs/small"}},
        "required": ["a", "b"],
        "additionalProperties": False,
        "$defs": {"small": {"type": "integer", "minimum": 0, "maximum": 9}},
    },
    strict=True,
)
TOOLS = (WEATHER, CLOCK, ADD)

names = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-", min_size=1, max_size=12)
nine_ids = st.text("abcXYZ019", min_size=9, max_size=9)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(allow_nan=False) | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(any_text, json_values, max_size=3)
_schemas = st.booleans() | st.fixed_dictionaries(
    {}, optional={"description": any_text, "default": json_values, "type": st.sampled_from(["string", "number"])}
)
tools = st.lists(
    st.builds(
        lambda name, description, properties, strict: Tool(
            name=name,
            description=description,
            parameters=None if properties is None else {"type": "object", "properties": properties},
            strict=strict,
        ),
        names,
        st.none() | any_text,
        st.none() | st.dictionaries(any_text, _schemas, max_size=3),
        st.none() | st.booleans(),
    ),
    max_size=3,
    unique_by=lambda tool: tool.name,
)
arguments = objects.map(json.dumps) | objects.map(lambda own: json.dumps(own, ensure_ascii=False)) | any_text
results = any_text | json_values.map(json.dumps)


@st.composite
def tool_conversations(draw: st.DrawFn, contents: st.SearchStrategy[str], *, most_calls: int = 3) -> list[Message]:
    """What mistral-common accepts: a question, then answers in words or in calls with their results, a user or a
    result last."""
    messages = [Message("system", text) for text in draw(st.lists(contents, max_size=1))]
    messages.append(Message("user", draw(contents)))
    used: set[str] = set()
    for kind in draw(st.lists(st.sampled_from(["words", "calls", "both"]), max_size=4)):
        if kind == "words" or messages[-1].role == "assistant":
            messages += [Message("assistant", draw(contents.filter(bool))), Message("user", draw(contents))]
            continue
        calls = draw(st.lists(st.builds(ToolCall, names, arguments, nine_ids), min_size=1, max_size=most_calls))
        calls = [call for place, call in enumerate(calls) if call.id not in {*used, *(c.id for c in calls[:place])}]
        if not calls:
            continue
        used |= {str(call.id) for call in calls}
        messages += exchange(calls, draw(st.permutations(calls)), draw(st.lists(results, min_size=9, max_size=9)))
        if kind == "both":
            messages.append(Message("user", draw(contents)))
    return messages


def exchange(calls: Sequence[ToolCall], order: Sequence[ToolCall], texts: Sequence[str]) -> list[Message]:
    """Some calls, and their results in some order."""
    told = [Message("tool", text, (), call.id, call.name) for call, text in zip(order, texts, strict=False)]
    return [Message("assistant", "", tuple(calls)), *told]
