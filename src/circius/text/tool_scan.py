"""Looking through JSON text: where an object ends as it comes, and which calls a finished text holds."""

import json
from collections.abc import Collection

from circius.text.tool_form import CallForm

_DECODER = json.JSONDecoder()


class ObjectEnd:
    """Finds the end of an object of JSON in a text that comes in pieces.

    >>> end = ObjectEnd()
    >>> end.find('{"a": "}'), end.find('"}, more'), end.is_found
    (8, 2, True)
    """

    def __init__(self) -> None:
        self.is_found = False
        self._depth = 0
        self._is_in_text = self._is_escaped = False

    def find(self, text: str) -> int:
        """How many characters of the next piece belong to the object."""
        for at, character in enumerate(text):
            if self._is_escaped:
                self._is_escaped = False
            elif self._is_in_text:
                self._is_escaped = character == "\\"
                self._is_in_text = character != '"'
            elif character == '"':
                self._is_in_text = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    self.is_found = True
                    return at + 1
        return len(text)


def found_calls(form: CallForm, before: str, text: str, names: Collection[str]) -> list[tuple[str, str]] | None:
    """The name and the arguments of each call in a text that is nothing but calls; None if it is anything else.

    It may differ from the form in white space, in the order of keys, and in an id or a type, which say nothing.
    before: the trigger, which opens the first object where a form has no other.
    """
    text = before.lstrip() + text if form.is_only_first else text
    marks = {word for part in (form.begin, form.between, form.end) for word in part.split()}
    marks |= {*form.specials, *"[],"}
    calls: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
        elif text[at] == "{":
            try:
                value, at = _DECODER.raw_decode(text, at)
            except (ValueError, RecursionError):
                return None
            call = _call_in(form, value, names)
            if call is None:
                return None
            calls.append(call)
        else:
            mark = max((mark for mark in marks if text.startswith(mark, at)), key=len, default=None)
            if mark is None:
                return None
            at += len(mark)
    is_too_many = form.most_calls is not None and len(calls) > form.most_calls
    return None if is_too_many else calls or None


def _call_in(form: CallForm, value: dict[str, object], names: Collection[str]) -> tuple[str, str] | None:
    known = {form.name_key, form.arguments_key, "arguments", "parameters", "id", "type"}
    name = value.get(form.name_key)
    arguments = value.get(form.arguments_key, value.get("arguments", value.get("parameters")))
    if not isinstance(name, str) or name not in names or not known.issuperset(value):
        return None
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return None
    return (name, json.dumps(arguments, ensure_ascii=False)) if isinstance(arguments, dict) else None
