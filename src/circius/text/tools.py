"""Tools that a model may call, and the calls that it makes: OpenAI's forms, checked when they are given."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from circius.base.errors import TemplateError

MOST_TOOLS = 128
MOST_TOOL_BYTES = 256 << 10
"""Of all definitions together, as JSON: more would hardly fit into a context."""
MOST_ID_CHARACTERS = 256

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_FUNCTION_KEYS = ("name", "description", "parameters", "strict")


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A function that a model may call, by OpenAI's definition.

    Attributes:
        name: 1 to 64 letters, digits, `_` and `-`.
        description: when and for what it is to be called.
        parameters: a JSON schema of its arguments, which are an object; None for a function without arguments.
        strict: whether the schema holds to the letter; otherwise what cannot be enforced of it is only shown.

    Raises:
        TemplateError: a value that is none of these.
    """

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] | None = None
    strict: bool | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "name")
        if self.description is not None and not isinstance(self.description, str):
            raise TemplateError(f"description must be a text, got {self.description!r:.80}")
        if self.strict is not None and not isinstance(self.strict, bool):
            raise TemplateError(f"strict must be true or false, got {self.strict!r:.80}")
        if self.parameters is None:
            return
        if not isinstance(self.parameters, Mapping):
            raise TemplateError(f"parameters must be a JSON schema, an object, got {self.parameters!r:.80}")
        kind = self.parameters.get("type", "object")
        if kind != "object":
            raise TemplateError(f'parameters must have the type "object": arguments have names; got {kind!r:.80}')
        object.__setattr__(self, "parameters", json.loads(_dumped(self.parameters, "parameters")))  # a copy of our own

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "Tool":
        """The tool in an object `{"type": "function", "function": {"name": ..., ...}}`.

        Raises:
            TemplateError: another kind of tool, or a key that cannot be honoured.
        """
        if not isinstance(mapping, Mapping):
            raise TemplateError(f'a tool is {{"type": "function", "function": ...}}, got {mapping!r:.80}')
        if mapping.get("type") != "function":
            raise TemplateError(f"type must be 'function', the only kind there is, got {mapping.get('type')!r:.80}")
        function = mapping.get("function")
        if not isinstance(function, Mapping) or "name" not in function:
            raise TemplateError(f"function must be an object with a name, got {function!r:.80}")
        unknown = [key for key in mapping if key not in ("type", "function")]
        unknown += [f"function.{key}" for key in function if key not in _FUNCTION_KEYS]
        if unknown:
            raise TemplateError(f"{unknown[0]} is not known in a tool: leave it out")
        try:
            return cls(**function)
        except TemplateError as error:
            raise TemplateError(f"function.{error}") from None

    @property
    def definition(self) -> dict[str, Any]:
        """OpenAI's object, with what was given and nothing else.

        >>> Tool(name="now").definition
        {'type': 'function', 'function': {'name': 'now'}}
        """
        function = {key: getattr(self, key) for key in _FUNCTION_KEYS if getattr(self, key) is not None}
        return {"type": "function", "function": function}

    @property
    def schema(self) -> Mapping[str, Any]:
        """The JSON schema of the arguments.

        >>> Tool(name="now").schema
        {'type': 'object', 'properties': {}, 'additionalProperties': False}
        """
        if self.parameters is None:
            return {"type": "object", "properties": {}, "additionalProperties": False}
        return self.parameters if "type" in self.parameters else {"type": "object", **self.parameters}


@dataclass(frozen=True)
class ToolCall:
    """A model's wish that a function be called: its name, and the arguments as JSON text.

    `id` is what the result will be told by; only a call that nobody has answered may be without.

    Raises:
        TemplateError: the name or the id is none, or the arguments are no text.
    """

    name: str
    arguments: str
    id: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "function.name")
        if not isinstance(self.arguments, str):
            raise TemplateError(f"function.arguments must be JSON, as text or as an object, got {self.arguments!r:.80}")
        if self.id is not None:
            check_id(self.id, "id")

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "ToolCall":
        """The call in an object `{"id": ..., "type": "function", "function": {"name": ..., "arguments": ...}}`.

        >>> ToolCall.from_mapping({"id": "a", "function": {"name": "add", "arguments": {"x": 1}}})
        ToolCall(name='add', arguments='{"x": 1}', id='a')

        Raises:
            TemplateError: another kind of call, or a key that cannot be honoured.
        """
        if not isinstance(mapping, Mapping):
            raise TemplateError(f'a call is {{"id": ..., "type": "function", "function": ...}}, got {mapping!r:.80}')
        if mapping.get("type", "function") != "function":
            raise TemplateError(f"type must be 'function', the only kind there is, got {mapping['type']!r:.80}")
        function = mapping.get("function")
        if not isinstance(function, Mapping) or "name" not in function:
            raise TemplateError(f"function must be an object with name and arguments, got {function!r:.80}")
        unknown = [key for key in mapping if key not in ("id", "type", "function", "index")]
        unknown += [f"function.{key}" for key in function if key not in ("name", "arguments")]
        if unknown:
            raise TemplateError(f"{unknown[0]} is not known in a call: leave it out")
        arguments = function.get("arguments")
        if isinstance(arguments, Mapping):
            arguments = _dumped(arguments, "function.arguments")
        return cls(function["name"], "{}" if arguments is None else arguments, mapping.get("id"))

    @property
    def value(self) -> Any:
        """The arguments as an object; their text itself if it is not JSON."""
        return json_or_text(self.arguments)

    @property
    def mapping(self) -> dict[str, Any]:
        """OpenAI's object.

        >>> ToolCall("now", "{}", "a").mapping
        {'id': 'a', 'type': 'function', 'function': {'name': 'now', 'arguments': '{}'}}
        """
        own = {"type": "function", "function": {"name": self.name, "arguments": self.arguments}}
        return own if self.id is None else {"id": self.id, **own}


def as_tools(tools: Sequence[Tool | Mapping[str, Any]] | None) -> tuple[Tool, ...]:
    """The tools with every mapping made a `Tool`.

    Raises:
        TemplateError: one is not valid, two have the same name, or they are too many or too large together.
    """
    if tools is None:
        return ()
    if isinstance(tools, str | bytes | Mapping) or not isinstance(tools, Sequence):
        raise TemplateError(f"tools must be a list of functions, got {type(tools).__name__}")
    if len(tools) > MOST_TOOLS:
        raise TemplateError(f"tools: there may be {MOST_TOOLS}, got {len(tools)}")
    made: list[Tool] = []
    size = 0
    for index, given in enumerate(tools):
        try:
            made.append(given if isinstance(given, Tool) else Tool.from_mapping(given))
            size += len(_dumped(made[-1].definition, "function").encode("utf-8", errors="surrogatepass"))
        except TemplateError as error:
            raise TemplateError(f"tools[{index}]: {error}") from None
    if size > MOST_TOOL_BYTES:
        raise TemplateError(f"tools: their definitions may have {MOST_TOOL_BYTES} bytes together, got {size}")
    for index, tool in enumerate(made):
        if tool.name in (before.name for before in made[:index]):
            raise TemplateError(f"tools[{index}]: function.name: there is a {tool.name!r} already")
    return tuple(made)


def check_name(name: Any, where: str) -> None:
    """Does nothing for the name of a function.

    Raises:
        TemplateError: it is none.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise TemplateError(f"{where} must be 1 to 64 letters, digits, _ or -, got {name!r:.80}")


def check_id(own_id: Any, where: str) -> None:
    """Does nothing for the id of a call.

    Raises:
        TemplateError: it is none.
    """
    if not isinstance(own_id, str) or not 0 < len(own_id) <= MOST_ID_CHARACTERS:
        raise TemplateError(f"{where} must be a text of 1 to {MOST_ID_CHARACTERS} characters, got {own_id!r:.80}")


def json_or_text(text: str) -> Any:
    """What a text says as JSON, or the text itself if it says nothing; an empty text is an empty object.

    >>> json_or_text('{"a": 1}'), json_or_text("cold"), json_or_text("")
    ({'a': 1}, 'cold', {})
    """
    if not text:
        return {}
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # numbers of thousands of digits, thousands of brackets: text like any other
        return text


def json_text(value: Any) -> str:
    """JSON as Python writes it, with the characters that there are.

    >>> json_text({"a": "é"})
    '{"a": "é"}'
    """
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _dumped(value: Any, where: str) -> str:
    try:
        return json_text(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise TemplateError(f"{where} cannot be written as JSON: {error}") from None


def _plain(value: Any) -> Any:
    """A mapping of another kind as a dictionary, for the `json` module."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")
