"""QuAC: questions about a passage, each of which leans on those before it.

The full validation file (val_v0.2.json, 7,354 questions) is read where a user brought it; else what can be had freely:
the first three questions of each of its 1,000 dialogues, whose passages have neither titles nor yes/no acts.
"""

from dataclasses import dataclass
from pathlib import Path

from circius.evals.data import store
from circius.evals.data.row import Row, json_file, json_lines
from circius.evals.scoring.f1 import CANNOT_ANSWER, quac_references

WHOLE = "quac/val_v0.2.json"
PARTIAL = "quac/quac_first3turns.jsonl"


@dataclass(frozen=True, kw_only=True)
class QuacTurn:
    """One question: the references that count by the official majority rule, and the answer that its history shows."""

    question: str
    references: tuple[str, ...]
    shown: str


@dataclass(frozen=True, kw_only=True)
class QuacDialogue:
    """A passage and the questions about it, in order; the texts about the passage are empty where unknown."""

    id: str
    passage: str
    title: str
    background: str
    section: str
    turns: tuple[QuacTurn, ...]


@dataclass(frozen=True, kw_only=True)
class Quac:
    """The dialogues, whether they are all there is, and what to call a score on them."""

    dialogues: tuple[QuacDialogue, ...]
    is_whole: bool
    label: str


def read_quac(home: Path | None = None) -> Quac:
    """The validation dialogues, whole if the official file is in the store, else their first three questions."""
    if store.holds(WHOLE, home):
        dialogues = tuple(dialogue for row in _articles(home) for dialogue in _official(row))
        return Quac(dialogues=dialogues, is_whole=True, label="QuAC, validation")
    rows = enumerate(json_lines(PARTIAL, home))
    return Quac(
        dialogues=tuple(_partial(row, place) for place, row in rows),
        is_whole=False,
        label="QuAC, first-3-turn subset",
    )


def _articles(home: Path | None) -> list[Row]:
    return Row(json_file(WHOLE, home), WHOLE).rows("data")


def _official(article: Row) -> list[QuacDialogue]:
    return [
        QuacDialogue(
            id=paragraph.text("id"),
            passage=paragraph.text("context").removesuffix(CANNOT_ANSWER).rstrip(),
            title=article.text("title"),
            background=article.text("background"),
            section=article.text("section_title"),
            turns=tuple(map(_official_turn, paragraph.rows("qas"))),
        )
        for paragraph in article.rows("paragraphs")
    ]


def _official_turn(row: Row) -> QuacTurn:
    references = [answer.text("text") for answer in row.rows("answers")]
    if not references:
        raise row.wrong("a question needs at least one answer")
    return QuacTurn(
        question=row.text("question"),
        references=quac_references(references),
        shown=row.row("orig_answer").text("text"),
    )


def _partial(row: Row, place: int) -> QuacDialogue:
    questions = row.texts("questions")
    references = row.lists("references")
    if len(questions) != len(references) or not all(references):
        raise row.wrong(f"{len(questions)} questions need as many lists of references, got {len(references)}")
    turns = (
        QuacTurn(question=question, references=quac_references(found), shown=quac_references(found)[0])
        for question, found in zip(questions, references, strict=True)
    )
    return QuacDialogue(
        id=str(place), passage=row.text("passage"), title="", background="", section="", turns=tuple(turns)
    )
