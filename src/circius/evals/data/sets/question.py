"""A question with choices: the form that OpenBookQA, ARC and CommonsenseQA share."""

from collections.abc import Iterable
from dataclasses import dataclass

from circius.evals.data.row import Row


@dataclass(frozen=True, kw_only=True)
class QuestionDoc:
    """A question, the texts of its choices (three to five of them), and the place of the right one."""

    id: str
    question: str
    choices: tuple[str, ...]
    gold: int


def questions(rows: Iterable[Row]) -> list[QuestionDoc]:
    """The questions in rows with `id`, `question`, `choices` and `gold`."""
    return [_doc(row) for row in rows]


def _doc(row: Row) -> QuestionDoc:
    choices = row.texts("choices")
    return QuestionDoc(
        id=row.text("id"), question=row.text("question"), choices=choices, gold=row.index("gold", len(choices))
    )
