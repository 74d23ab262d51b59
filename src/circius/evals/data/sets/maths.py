r"""MATH: competition problems of seven subjects.

The answer is the last \boxed{} of the solution in the very form that a model's answer is put into. What other copies of
the set have in a field `answer` went through another normaliser, which damages LaTeX, and is not used.
"""

from dataclasses import dataclass
from pathlib import Path

from circius.base.errors import InvalidInputError
from circius.evals.data.row import Row, json_lines
from circius.evals.scoring.maths import gold


@dataclass(frozen=True, kw_only=True)
class MathDoc:
    """A problem with its subject, level ("Level 1" to "Level 5"), solution, and answer in Minerva's form."""

    id: str
    subject: str
    level: str
    problem: str
    solution: str
    answer: str


def read_math(home: Path | None = None) -> list[MathDoc]:
    """The 5,000 items of test, subject by subject."""
    return [_doc(row, place) for place, row in enumerate(json_lines("math/test.jsonl.gz", home))]


def _doc(row: Row, place: int) -> MathDoc:
    solution = row.text("solution")
    try:
        answer = gold(solution)
    except InvalidInputError as error:
        raise row.wrong(str(error)) from error
    return MathDoc(
        id=str(place),
        subject=row.text("type"),
        level=row.text("level"),
        problem=row.text("problem"),
        solution=solution,
        answer=answer,
    )
