"""What a Jinja template is given: messages as objects, and the texts in them."""

from collections.abc import Callable
from typing import Any

from circius.text.message import Message

Chat = list[dict[str, Any]]
Hide = Callable[[str], str]
"""What becomes of every text before it is rendered."""


def shown(text: str) -> str:
    """The text itself."""
    return text


def as_mapping(message: Message, *, empty_content: str | None) -> dict[str, Any]:
    """The message as transformers hands it to a template: arguments are objects, and what is not there has no key.

    empty_content: the content of calls without text.
    """
    mapping: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        mapping["content"] = message.content or empty_content
        mapping["tool_calls"] = [
            {**call.mapping, "function": {"name": call.name, "arguments": call.value}} for call in message.tool_calls
        ]
    named = {"tool_call_id": message.tool_call_id, "name": message.name}
    return mapping | {key: value for key, value in named.items() if value is not None}


def mapped(value: Any, change: Hide) -> Any:
    """A value with every text in it changed, the keys of objects too.

    >>> mapped([{"a": "b"}, None, 1], str.upper)
    [{'A': 'B'}, None, 1]
    """
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): mapped(own, change) for key, own in value.items()}
    return [mapped(own, change) for own in value] if isinstance(value, list) else value


def texts_in(value: Any) -> list[str]:
    """All texts in a value.

    >>> texts_in([{"a": "b"}, None, 1])
    ['a', 'b']
    """
    texts: list[str] = []

    def note(text: str) -> str:
        texts.append(text)
        return text

    mapped(value, note)
    return texts
