"""AGIEval: the eight English sets of multiple choice from exams (v1.1).

The exam questions keep the terms of their owners: for research, not to be published again.
"""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from circius.base.errors import DataError, InvalidInputError
from circius.evals.data.row import Row, csv_rows, json_lines

SETS = ("aqua-rat", "logiqa-en", "lsat-ar", "lsat-lr", "lsat-rc", "sat-en", "sat-en-without-passage", "sat-math")
LETTERS = "ABCDE"

_SHOTS_OF = {"sat-en-without-passage": "sat-en"}  # the file has no column of its own for it


@dataclass(frozen=True, kw_only=True)
class AgiEvalDoc:
    """A question of an exam.

    Attributes:
        passage: empty where there is none.
        options: as printed, most with their letter, such as "(A)12"; a few of logiqa-en have "A 12", "A? 12" or no
            letter at all, and some stand in the order A, C, B, D.
        label: the letter of the right option.
    """

    id: str
    passage: str
    question: str
    options: tuple[str, ...]
    label: str

    @property
    def letters(self) -> str:
        """The letters that can be answers: as many as there are options."""
        return LETTERS[: len(self.options)]


def read_agieval(set_name: str, home: Path | None = None) -> list[AgiEvalDoc]:
    """The questions of one of `SETS`; 2,546 in all."""
    _check(set_name)
    rows = json_lines(f"agieval/{set_name}.jsonl", home)
    return [_doc(row, f"{set_name}/{place}") for place, row in enumerate(rows)]


def read_agieval_shots(set_name: str, home: Path | None = None) -> list[AgiEvalDoc]:
    """The official examples of one of `SETS`: five for aqua-rat and sat-math, three for the others.

    Those of sat-en-without-passage are sat-en's, without their passages.
    """
    _check(set_name)
    column = _SHOTS_OF.get(set_name, set_name)
    docs: list[AgiEvalDoc] = []
    for row in csv_rows("agieval/few_shot_prompts.csv", home):
        cell = row.text_or_none(column)
        if row.text("").startswith("sample") and cell is not None:
            fields = _literal(cell, row.where)
            if set_name in _SHOTS_OF:
                fields = {**fields, "passage": None}
            docs.append(_doc(Row(fields, row.where), f"{set_name}/shot-{len(docs) + 1}"))
    return docs


def printed_letter(option: str) -> str | None:
    """The letter that an option begins with, in whichever way; None where it has none.

    >>> printed_letter("(C)Some workers"), printed_letter("B? Although"), printed_letter("When the land")
    ('C', 'B', None)
    """
    found = re.match(r"\(([A-E])\)|([A-E])[?. ]", option)
    return found and (found[1] or found[2])


def _doc(row: Row, name: str) -> AgiEvalDoc:
    options = row.texts("options")
    label = row.text("label")
    if label not in LETTERS[: len(options)] or len(label) != 1:
        raise row.wrong(f"label must be one of the letters of {len(options)} options, got {label!r}")
    return AgiEvalDoc(
        id=name,
        passage=row.text_or_none("passage") or "",
        question=row.text("question"),
        options=options,
        label=label,
    )


def _literal(cell: str, where: str) -> dict[str, object]:
    try:
        fields = ast.literal_eval(cell)
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise DataError(f"{where}: no Python dictionary ({cell!r:.60})") from error
    if not isinstance(fields, dict):
        raise DataError(f"{where}: expected a dictionary, got {cell!r:.60}")
    return fields


def _check(set_name: str) -> None:
    if set_name not in SETS:
        raise InvalidInputError(f"AGIEval has no English set {set_name!r}: use {', '.join(SETS)}")
