"""Keeping the text of a message from passing for the template's own marks.

In the v1 template `[INST]` and `[/INST]` are plain text: a user who types them would get the very ids of a real turn.
Escaping spells the word between the brackets in other, finer pieces: the text stays the same, the ids do not.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from circius.base.errors import TemplateError
from circius.text.message import Message
from circius.text.tokenizer import Tokenizer
from circius.text.tools import Tool, json_text

Injection = Literal["escape", "strict", "allow"]

INJECTIONS: tuple[str, ...] = get_args(Injection)
TURN_MARKS = ("[INST]", "[/INST]")

_TURN_MARK = re.compile(r"(\[/?)INST(?=\])")
_WORD = "INST"


def refuse_literals(messages: Sequence[Message], literals: Iterable[str], tools: Sequence[Tool] = ()) -> None:
    """Does nothing if no message, and no definition of a tool, contains any of `literals`.

    Raises:
        TemplateError: one does; the error names its index and the literal.
    """
    texts = [(f"messages[{index}]", text) for index, message in enumerate(messages) for text in message.texts]
    texts += [(f"tools[{index}]", json_text(tool.definition)) for index, tool in enumerate(tools)]
    for where, text in texts:
        for literal in literals:
            if literal in text:
                raise TemplateError(
                    f"{where}: the text contains {literal!r}, which marks turns in this template; "
                    "remove it, or let it be escaped (injection='escape')"
                )


def escaped(text: str, tokenizer: Tokenizer) -> list[str | Sequence[int]]:
    """The parts of `text`, with the word of every turn mark as ids that no template produces.

    Raises:
        TemplateError: the vocabulary has only one spelling for a mark.
    """
    parts: list[str | Sequence[int]] = []
    at = 0
    for found in _TURN_MARK.finditer(text):
        parts += [text[at : found.end(1)], finer_spelling(tokenizer)]
        at = found.end()
    return [*parts, text[at:]]


def finer_spelling(tokenizer: Tokenizer) -> list[int]:
    """Ids for the word `INST`, letter by letter, that differ from the ids it has in `[INST]`.

    Raises:
        TemplateError: the vocabulary has no such spelling.
    """
    usual = tokenizer.encode(TURN_MARKS[0])
    for spelling in (
        [tokenizer.id_of(letter) for letter in _WORD],
        [tokenizer.id_of(f"<0x{ord(c):02X}>") for c in _WORD],
    ):
        ids = [index for index in spelling if index is not None]
        if len(ids) == len(_WORD) and not _contains(usual, ids):
            return ids
    raise TemplateError(
        f"the text contains a turn mark such as {TURN_MARKS[0]!r}, and this vocabulary has only one spelling for it, "
        "so it cannot be told from a real turn: remove it"
    )


def _contains(ids: Sequence[int], part: Sequence[int]) -> bool:
    return any(list(ids[at : at + len(part)]) == list(part) for at in range(len(ids)))
