"""GSM8K: word problems from school, with worked answers."""

from dataclasses import dataclass
from pathlib import Path

from circius.base.errors import InvalidInputError
from circius.evals.data.row import Row, json_lines
from circius.evals.scoring.gsm8k import gold


@dataclass(frozen=True, kw_only=True)
class Gsm8kDoc:
    """A problem, its worked answer as the file has it, and the final number as plain digits."""

    id: str
    question: str
    solution: str
    answer: str


def read_gsm8k(home: Path | None = None) -> list[Gsm8kDoc]:
    """The 1,319 items of test."""
    return [_doc(row, place) for place, row in enumerate(json_lines("gsm8k/test.jsonl.gz", home))]


def read_gsm8k_train(home: Path | None = None) -> list[Gsm8kDoc]:
    """The 7,473 items of train. The eight examples of the paper's protocol are not from it."""
    return [_doc(row, place) for place, row in enumerate(json_lines("gsm8k/train.jsonl", home))]


def _doc(row: Row, place: int) -> Gsm8kDoc:
    solution = row.text("answer")
    try:
        answer = gold(solution)
    except InvalidInputError as error:
        raise row.wrong(str(error)) from error
    return Gsm8kDoc(id=str(place), question=row.text("question"), solution=solution, answer=answer)
