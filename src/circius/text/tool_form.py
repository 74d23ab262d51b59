"""How a model writes the calls that it makes: the text around and between objects of JSON."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from circius.text.tools import ToolCall, json_text

GAP = None
"""In a pattern: up to `MOST_GAP` spaces and line breaks."""
MOST_GAP = 2
Pattern = tuple[str | int | None, ...]
"""What must stand in a text: pieces of text, control tokens by their id, and gaps."""


@dataclass(frozen=True, kw_only=True)
class CallForm:
    """`begin` call `between` call `end`; a call is an object of JSON with a name and the arguments, in this order.

    Attributes:
        specials: the control tokens in these texts, by their text.
        most_calls: of one answer; None for no limit.

    >>> DESCRIBED.write([ToolCall("add", '{"x": 1}')])
    '<tool_call>\\n{"name": "add", "arguments": {"x": 1}}\\n</tool_call>'
    """

    begin: str
    between: str
    end: str
    name_key: str = "name"
    arguments_key: str = "arguments"
    specials: Mapping[str, int] = field(default_factory=dict)
    most_calls: int | None = None

    @property
    def trigger(self) -> str | int:
        """What tells calls from other text: the control token or the text with which they begin."""
        first = self._pieces(self.begin)[:1]
        return first[0] if first else self.object_begin

    @property
    def is_only_first(self) -> bool:
        """Whether an answer has calls only if it begins with them: an object of JSON could be anything else."""
        return not self.begin.strip()

    @property
    def object_begin(self) -> str:
        """What stands before the name of the function."""
        return f"{{{json.dumps(self.name_key)}: "

    @property
    def object_middle(self) -> str:
        """What stands between the name and the arguments."""
        return f", {json.dumps(self.arguments_key)}: "

    @property
    def opening(self) -> Pattern:
        """What stands between the trigger and the name of the first function."""
        return () if self.is_only_first else (*_pattern(self._pieces(self.begin)[1:]), self.object_begin)

    @property
    def next(self) -> Pattern:
        """What stands behind the arguments of a call and before the name of the next function."""
        return ("}", *_pattern(self._pieces(self.between)), self.object_begin)

    @property
    def closing(self) -> Pattern:
        """What stands behind the arguments of the last call."""
        return ("}", *_pattern(self._pieces(self.end))[:-1])

    def write(self, calls: Sequence[ToolCall]) -> str:
        """The calls as text; none of their arguments can end it, since `</` is written as `<\\/`."""
        return self.begin + self.between.join(safe_json(self._object(call)) for call in calls) + self.end

    def literal(self, token: int) -> str:
        """The text of a control token."""
        return next(text for text, own in self.specials.items() if own == token)

    def _object(self, call: ToolCall) -> dict[str, object]:
        return {self.name_key: call.name, self.arguments_key: call.value}

    def _pieces(self, text: str) -> list[str | int]:
        """A text in pieces without white space at their ends, and control tokens."""
        longest_first = sorted(self.specials, key=len, reverse=True)
        cut = re.split("|".join(f"({re.escape(each)})" for each in longest_first) or "(?!)", text)
        pieces = [piece for piece in cut if piece and piece.strip()]
        return [self.specials[piece] if piece in self.specials else piece.strip() for piece in pieces]


def _pattern(pieces: Sequence[str | int]) -> Pattern:
    """The pieces with a gap wherever they have white space or could have."""
    parts: list[str | int | None] = [GAP]
    for piece in pieces:
        for word in piece.split() if isinstance(piece, str) else [piece]:
            parts += [word, GAP]
    return tuple(parts)


DESCRIBED = CallForm(begin="<tool_call>\n", between="\n</tool_call>\n<tool_call>\n", end="\n</tool_call>")
"""For models whose templates know nothing of tools: Hermes's form, which most fine-tuned models have seen."""


def safe_json(value: object) -> str:
    """JSON in which no `</` stands, so that no text in it passes for a closing mark.

    >>> safe_json({"a": "</x> é"})
    '{"a": "<\\\\/x> é"}'
    """
    return json_text(value).replace("</", "<\\/")
