"""How a model's own template writes calls, learnt by letting it write some.

A template that takes tools is the only thing that says how its model was taught to call them, and it says so in Jinja.
So a conversation with two calls is rendered, and what stands before, between and behind their objects of JSON is the
form.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from circius.base.errors import TemplateError
from circius.text.tool_form import CallForm

Render = Callable[[list[dict[str, Any]], list[dict[str, Any]], bool], str]
"""The text of a conversation with tools; with the words that open an answer if the last argument says so."""

_NAMES = ("circius_probe_one", "circius_probe_two")
_ARGUMENTS = {"circius_probe_key": "circius_probe_value"}
_FOREIGN, _NINE = ("call_circius_probe_1", "call_circius_probe_2"), ("cprobe001", "cprobe002")
_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "A probe.",
            "parameters": {"type": "object", "properties": {"circius_probe_key": {"type": "string"}}, "required": []},
        },
    }
    for name in _NAMES
]
_QUESTION = {"role": "user", "content": "circius_probe_question"}
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, kw_only=True)
class ToolStyle:
    """What a template expects: the form of calls, ids of nine characters or any, and which content means none."""

    form: CallForm
    needs_nine: bool
    empty_content: str | None


def find_style(render: Render, *, specials: Mapping[str, int], stops: Iterable[str]) -> ToolStyle | None:
    """The style of a template, or None for one whose calls are no objects of JSON with a name and the arguments.

    specials: the control tokens. stops: the texts that end an answer.
    """
    ends = tuple(stops)
    for n_calls, ids, empty in product((2, 1), (_FOREIGN, _NINE), ("", None)):
        try:
            prompt = render([_QUESTION], _TOOLS, True)
            text = render([_QUESTION, _answer(n_calls, ids, empty)], _TOOLS, False)
        except TemplateError:
            continue
        form = _form(prompt, text, n_calls, ids, specials, ends)
        if form is not None:
            return ToolStyle(form=form, needs_nine=ids is _NINE, empty_content=empty)
    return None


def _answer(n_calls: int, ids: tuple[str, ...], empty: str | None) -> dict[str, Any]:
    calls = [
        {"id": own_id, "type": "function", "function": {"name": name, "arguments": dict(_ARGUMENTS)}}
        for own_id, name in zip(ids, _NAMES, strict=True)
    ]
    return {"role": "assistant", "content": empty, "tool_calls": calls[:n_calls]}


def _form(
    prompt: str, text: str, n_calls: int, ids: tuple[str, ...], specials: Mapping[str, int], stops: tuple[str, ...]
) -> CallForm | None:
    begin_of_answer = _n_common(prompt, text)
    if prompt[begin_of_answer:].strip():
        return None  # an answer does not begin where the prompt ends
    found = [_object(text, name, begin_of_answer) for name in _NAMES[:n_calls]]
    objects = [own for own in found if own is not None]
    if len(objects) < n_calls:
        return None
    (first, first_end, name_key, arguments_key), (last, last_end, *_) = objects[0], objects[-1]
    rest = text[last_end:]
    cuts = [rest.find(stop) for stop in stops if stop in rest]
    parts = [text[begin_of_answer:first], text[first_end:last] if n_calls > 1 else "", rest[: min(cuts, default=None)]]
    if any(word in part for part in parts for word in (*ids, *_NAMES)):
        return None
    begin, between, end = parts
    return CallForm(
        begin=begin.lstrip(),
        between=between,
        end=end.rstrip(),
        name_key=name_key,
        arguments_key=arguments_key,
        specials={literal: token for literal, token in specials.items() if any(literal in part for part in parts)},
        most_calls=None if n_calls > 1 else 1,
    )


def _object(text: str, name: str, begin: int) -> tuple[int, int, str, str] | None:
    """Where the innermost object that has the name and the arguments stands, and the keys of both."""
    at = text.find(json.dumps(name), begin)
    while at >= 0 and (at := text.rfind("{", begin, at)) >= 0:
        try:
            value, end = _DECODER.raw_decode(text, at)
        except ValueError:
            continue
        names = [key for key, own in value.items() if own == name]
        arguments = [key for key, own in value.items() if own == _ARGUMENTS]
        if names and arguments:
            return at, end, names[0], arguments[0]
    return None


def _n_common(one: str, other: str) -> int:
    """How many characters two texts have in common from the beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))
