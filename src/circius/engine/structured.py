"""The form that an answer must have: what a caller asks for, and what a sampler asks at every token. No torch here."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

from circius.base.errors import ParamsError

MOST_BYTES = 256 << 10
MOST_DEPTH = 64


class Constraint(Protocol):
    """One answer's way through a form."""

    def allowed(self) -> bytes:
        """A bit for each token, the lowest of a byte first: whether it may stand next."""
        ...

    def accept(self, token: int) -> None:
        """Goes on behind a token that was allowed."""
        ...


@dataclass(frozen=True, kw_only=True)
class StructuredOutputs:
    """One form of an answer, by vLLM's names.

    json: a JSON schema, as an object or as text. regex: a regular expression for the whole answer. choice: texts of
    which the answer is one. grammar: a grammar in Lark's notation. json_object: any JSON object.

    Raises:
        ParamsError: none or several of them, or one that is not well-formed.
    """

    json: str | Mapping[str, Any] | bool | None = None
    regex: str | None = None
    choice: Sequence[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None

    def __post_init__(self) -> None:
        given = [own.name for own in fields(self) if getattr(self, own.name) not in (None, False)]
        if self.json is False:
            given.append("json")
        if len(given) != 1:
            named = ", ".join(given) or "none"
            raise ParamsError(
                f"structured_outputs must be one of json, regex, choice, grammar, json_object, got {named}"
            )
        for name in ("regex", "grammar"):
            text = getattr(self, name)
            if text is not None and (not isinstance(text, str) or not text or len(text.encode()) > MOST_BYTES):
                raise ParamsError(f"structured_outputs.{name} must be a text of 1 to {MOST_BYTES} bytes")
        if self.choice is not None:
            is_list = isinstance(self.choice, Sequence) and not isinstance(self.choice, str)
            if not is_list or not self.choice or not all(isinstance(text, str) and text for text in self.choice):
                raise ParamsError(f"structured_outputs.choice must be a list of texts, got {self.choice!r:.80}")
        if self.json is not None:
            check_schema(self.schema)

    @property
    def schema(self) -> Any:
        """The JSON schema, if there is one.

        Raises:
            ParamsError: it is a text that is not JSON.
        """
        if self.json_object:
            return {"type": "object"}
        if self.json is True:
            return {}
        if not isinstance(self.json, str):
            return self.json
        try:
            return json.loads(self.json)
        except ValueError as error:
            raise ParamsError(f"structured_outputs.json is not JSON: {error}") from error


def check_schema(schema: Any, name: str = "structured_outputs.json") -> None:
    """Refuses a schema that is too large, too deep, or says what would not be heeded.

    name: what the caller calls it, for the error.

    Raises:
        ParamsError: it names the place by a JSON pointer.
    """
    if not isinstance(schema, Mapping | bool):
        raise ParamsError(f"{name} must be an object or a boolean, got {schema!r:.80}")
    if len(json.dumps(schema)) > MOST_BYTES:
        raise ParamsError(f"{name} may have {MOST_BYTES} bytes, got {len(json.dumps(schema))}")
    for pointer, part in _walk(schema, "", name):
        for keyword in part if isinstance(part, Mapping) else ():
            if keyword not in _HEEDED and keyword not in _SAYS_NOTHING and not str(keyword).startswith("x-"):
                raise ParamsError(f"{name}: {pointer}/{keyword}: this keyword cannot be honoured")


_HEEDED = frozenset({
    *("type", "enum", "const", "properties", "required", "additionalProperties", "items", "prefixItems", "minItems"),
    *("additionalItems", "maxItems", "minLength", "maxLength", "pattern", "format", "minimum", "maximum", "multipleOf"),
    *("exclusiveMinimum", "exclusiveMaximum", "anyOf", "oneOf", "allOf", "$ref", "$defs", "definitions"),
})  # fmt: skip
_SAYS_NOTHING = frozenset({
    *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
    *("$schema", "$id", "$comment", "$anchor"),
})  # fmt: skip
_MAPS = ("properties", "$defs", "definitions")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties", "additionalItems")


def _walk(schema: Any, pointer: str, name: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """A schema and all schemas in it, each with its JSON pointer; names of properties are no keywords."""
    if depth > MOST_DEPTH:
        raise ParamsError(f"{name}: {pointer}: deeper than {MOST_DEPTH} schemas")
    yield pointer, schema
    if not isinstance(schema, Mapping):
        return
    for keyword in _MAPS:
        inner = schema.get(keyword)
        if isinstance(inner, Mapping):
            for key, value in inner.items():
                escaped = str(key).replace("~", "~0").replace("/", "~1")
                yield from _walk(value, f"{pointer}/{keyword}/{escaped}", name, depth + 1)
    for keyword in _LISTS:
        inner = schema.get(keyword)
        if isinstance(inner, Sequence) and not isinstance(inner, str):
            for index, value in enumerate(inner):
                yield from _walk(value, f"{pointer}/{keyword}/{index}", name, depth + 1)
    for keyword in _SINGLE:
        if isinstance(schema.get(keyword), Mapping):
            yield from _walk(schema[keyword], f"{pointer}/{keyword}", name, depth + 1)
