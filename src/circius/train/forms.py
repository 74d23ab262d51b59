"""The forms that chat data come in: how each is recognised, and the messages inside it."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from circius.base.errors import InvalidInputError
from circius.text.message import JOINT
from circius.train.records import kind_of

Fields = Mapping[str, Any]
Raw = dict[str, Any]
"""A message as an object with role, content and perhaps weight; not checked yet."""

TOOL_KEYS = ("tools", "available_tools", "functions")
SHARED_KEYS = frozenset({"system", "system_prompt", *TOOL_KEYS})
"""Keys that mean the same in a record of any form."""
LISTS = ("messages", "interactions", "conversations")
SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "system": "system",
}


def detect(fields: Fields) -> str | None:
    """The form of a record, or None if it is none of `CHAT_FORMS`.

    >>> detect({"instruction": "Add.", "input": "1 1", "output": "2"})
    'alpaca'
    """
    listed = next((fields[key] for key in LISTS if isinstance(fields.get(key), list)), None)
    if listed is not None:
        is_sharegpt = bool(listed) and isinstance(listed[0], Mapping) and "from" in listed[0]
        return "sharegpt" if is_sharegpt else "messages"
    if "instruction" in fields and "instances" in fields:
        return "self-instruct"
    if "instruction" in fields and _first(fields, ("output", "response")) is not None:
        return "alpaca"
    if "prompt" in fields and _first(fields, ("response", "completion")) is not None:
        return "prompt-response"
    return None


def is_preference(fields: Fields) -> bool:
    """Whether a record holds two answers of which one is preferred."""
    return "chosen" in fields and "rejected" in fields


def raw_conversations(fields: Fields, form: str) -> list[list[Raw]]:
    """The messages of a record of that form; one conversation, or several for `self-instruct`.

    Raises:
        InvalidInputError: the record has not the form's keys, or values of another kind.
    """
    return CHAT_FORMS[form](fields)


def raw_tools(fields: Fields) -> list[Any]:
    """The definitions of the tools that a record's assistant may call; not checked yet.

    Raises:
        InvalidInputError: they are no list, nor the JSON of one.
    """
    key = next((key for key in TOOL_KEYS if fields.get(key)), None)
    if key is None:
        return []
    tools = fields[key]
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except ValueError:
            raise InvalidInputError(f"{key!r} is a text that is not JSON; a list of tools is expected") from None
    if not isinstance(tools, list):
        raise InvalidInputError(f"{key!r} is {kind_of(tools)}, where a list of tools is expected")
    bare = [isinstance(tool, Mapping) and "name" in tool and "function" not in tool for tool in tools]
    return [
        {"type": "function", "function": tool} if is_bare else tool for tool, is_bare in zip(tools, bare, strict=True)
    ]


def used_keys(form: str) -> frozenset[str]:
    """The keys of a record that its form gives a meaning to; all others are left alone."""
    return _KEYS.get(form, frozenset()) | SHARED_KEYS


def text_field(fields: Fields, keys: Sequence[str], *, form: str) -> str:
    """The text under the first of `keys` that there is.

    Raises:
        InvalidInputError: there is none of them, or it is not text.
    """
    key = _first(fields, keys)
    if key is None:
        raise InvalidInputError(
            f"no {' or '.join(map(repr, keys))}, which a record of the form {form} has; this one has "
            f"{', '.join(map(repr, fields)) or 'no keys'}"
        )
    value = fields[key]
    if not isinstance(value, str):
        raise InvalidInputError(f"{key!r} is {kind_of(value)}, where text is expected")
    return value


def turns_of(value: Any, role: str, key: str) -> list[Raw]:
    """A text as one message of `role`, or a list of messages as it is.

    Raises:
        InvalidInputError: it is neither.
    """
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if isinstance(value, list):
        return value
    raise InvalidInputError(f"{key!r} is {kind_of(value)}, where text or a list of messages is expected")


def with_system(fields: Fields, messages: list[Raw]) -> list[Raw]:
    """The messages, behind the system prompt that the record may have under a key of its own.

    Raises:
        InvalidInputError: it is not text, or the messages bring one along too.
    """
    key = next((key for key in ("system", "system_prompt") if fields.get(key)), None)
    if key is None:
        return messages
    if not isinstance(fields[key], str):
        raise InvalidInputError(f"{key!r} is {kind_of(fields[key])}, where text is expected")
    if messages and isinstance(messages[0], Mapping) and messages[0].get("role") == "system":
        raise InvalidInputError(f"{key!r} and a system message are both given: keep one of them")
    return [{"role": "system", "content": fields[key]}, *messages]


def _messages(fields: Fields) -> list[list[Raw]]:
    key = _first(fields, LISTS)
    if key is None or not isinstance(fields[key], list):
        given = f"{key!r} is {kind_of(fields[key])}" if key else f"it has {', '.join(map(repr, fields))}"
        raise InvalidInputError(f"a record of the form messages has a list under one of {', '.join(LISTS)}; {given}")
    return [with_system(fields, fields[key])]


def _sharegpt(fields: Fields) -> list[list[Raw]]:
    messages = []
    [listed] = _messages({key: fields[key] for key in fields if key in LISTS})
    for index, turn in enumerate(listed):
        if not isinstance(turn, Mapping) or "from" not in turn or "value" not in turn:
            raise InvalidInputError(f"messages[{index}]: a turn of the form sharegpt has 'from' and 'value'")
        speaker = turn["from"]
        if not isinstance(speaker, str) or speaker not in SPEAKERS:
            raise InvalidInputError(f"messages[{index}]: from is {speaker!r}; {', '.join(SPEAKERS)} are known")
        rest = {key: value for key, value in turn.items() if key not in ("from", "value")}
        messages.append({"role": SPEAKERS[speaker], "content": turn["value"], **rest})
    return [with_system(fields, messages)]


def _alpaca(fields: Fields) -> list[list[Raw]]:
    earlier: list[Raw] = []
    history = fields.get("history") or []
    if not isinstance(history, list):
        raise InvalidInputError(f"'history' is {kind_of(history)}, where a list of pairs is expected")
    for index, pair in enumerate(history):
        if not isinstance(pair, Sequence) or len(pair) != 2 or isinstance(pair, str):
            raise InvalidInputError(f"history[{index}] is not a pair of a question and its answer")
        earlier += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    answer = text_field(fields, ("output", "response"), form="alpaca")
    asked = instruction(fields, form="alpaca")
    return [with_system(fields, [*earlier, asked, {"role": "assistant", "content": answer}])]


def instruction(fields: Fields, *, form: str) -> Raw:
    """The user's message: the instruction, and under an empty line its input, if there is any.

    Raises:
        InvalidInputError: there is no instruction, or one of the two is not text.
    """
    parts = [text_field(fields, ("instruction",), form=form)]
    key = _first(fields, ("input", "context"))
    if key is not None and fields[key] is not None:
        parts.append(text_field(fields, (key,), form=form))
    return {"role": "user", "content": JOINT.join(part for part in parts if part)}


def _prompt_response(fields: Fields) -> list[list[Raw]]:
    key = _first(fields, ("response", "completion"))
    if "prompt" not in fields or key is None:
        raise InvalidInputError(
            "a record of the form prompt-response has 'prompt' and 'response' (or 'completion'); this one has "
            f"{', '.join(map(repr, fields)) or 'no keys'}"
        )
    asked, answered = turns_of(fields["prompt"], "user", "prompt"), turns_of(fields[key], "assistant", key)
    return [with_system(fields, [*asked, *answered])]


def _self_instruct(fields: Fields) -> list[list[Raw]]:
    instances = fields.get("instances")
    if not isinstance(instances, list) or not all(isinstance(one, Mapping) for one in instances):
        raise InvalidInputError(
            "a record of the form self-instruct has 'instances', a list of objects with input, output"
        )
    asked = text_field(fields, ("instruction",), form="self-instruct")
    return [_alpaca({**instance, "instruction": asked})[0] for instance in instances]


def _first(fields: Fields, keys: Sequence[str]) -> str | None:
    return next((key for key in keys if key in fields), None)


CHAT_FORMS: dict[str, Callable[[Fields], list[list[Raw]]]] = {
    "messages": _messages,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "prompt-response": _prompt_response,
    "self-instruct": _self_instruct,
}
"""The forms of conversations by name, each with what makes messages of a record."""

_KEYS = {
    "messages": frozenset(LISTS),
    "sharegpt": frozenset(LISTS),
    "alpaca": frozenset({"instruction", "input", "context", "output", "response", "history"}),
    "prompt-response": frozenset({"prompt", "response", "completion"}),
    "self-instruct": frozenset({"instruction", "instances"}),
}
