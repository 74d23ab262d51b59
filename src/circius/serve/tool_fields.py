"""The fields of tools: definitions, choices, and the calls of earlier answers, as OpenAI's clients send them."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from circius.serve.fields import Strict
from circius.text.tool_reader import CallPiece
from circius.text.tools import MOST_TOOLS

MOST_CALLS = 1024
"""Of one earlier message."""


class FunctionDefinition(Strict):
    """`parameters` is a JSON schema of an object; without it the function has no arguments."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolDefinition(Strict):
    type: Literal["function"]
    function: FunctionDefinition

    def as_mapping(self) -> dict[str, Any]:
        """The definition with what was given."""
        own = self.function
        named = {"description": own.description, "parameters": own.parameters, "strict": own.strict}
        given = {key: value for key, value in named.items() if value is not None}
        return {"type": "function", "function": {"name": own.name, **given}}


class NamedFunction(Strict):
    name: str


class NamedTool(Strict):
    """The one function that is to be called."""

    type: Literal["function"]
    function: NamedFunction


class CalledFunction(Strict):
    name: str
    arguments: str
    """As JSON."""
    parsed_arguments: Any = None
    """OpenAI's client sends its own reading of the arguments back with them; the text is what counts."""


class CallField(Strict):
    """A call of an earlier answer, as it came."""

    id: str
    type: Literal["function"] | None = None
    function: CalledFunction
    index: int | None = None
    """Pieces of a stream have it."""

    def as_mapping(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "function",
            "function": {"name": self.function.name, "arguments": self.function.arguments},
        }


ToolList = Annotated[list[ToolDefinition], Field(max_length=MOST_TOOLS)]
ToolChoiceField = Literal["auto", "none", "required"] | NamedTool


def definitions(tools: Sequence[ToolDefinition] | None) -> list[dict[str, Any]]:
    """The tools as an `LLM` takes them."""
    return [tool.as_mapping() for tool in tools or ()]


def call_deltas(pieces: Sequence[CallPiece]) -> list[dict[str, Any]]:
    """Pieces of calls as a stream tells them: one entry for each call, with its id and name when it begins.

    >>> call_deltas([CallPiece(0, "", "abcdefgh1", "add"), CallPiece(0, '{"a"')])
    [{'index': 0, 'id': 'abcdefgh1', 'type': 'function', 'function': {'name': 'add', 'arguments': '{"a"'}}]
    """
    deltas: dict[int, dict[str, Any]] = {}
    for piece in pieces:
        if piece.id is not None:
            function = {"name": piece.name, "arguments": ""}
            deltas[piece.index] = {"index": piece.index, "id": piece.id, "type": "function", "function": function}
        delta = deltas.setdefault(piece.index, {"index": piece.index, "function": {"arguments": ""}})
        delta["function"]["arguments"] += piece.arguments
    return list(deltas.values())


def _refuse_old(value: Any) -> None:
    if value is not None:
        raise PydanticCustomError(
            "old_tools", "this is the old form of tool calls: use tools, tool_choice and tool_calls instead"
        )


Old = Annotated[Any, AfterValidator(_refuse_old)]
"""A field that clients of 2023 sent; null is as good as nothing."""
