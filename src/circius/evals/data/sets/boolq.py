"""BoolQ: yes or no, from a passage."""

from dataclasses import dataclass
from pathlib import Path

from circius.evals.data.row import Row, json_lines


@dataclass(frozen=True, kw_only=True)
class BoolqDoc:
    """A passage, a question without its question mark, and whether the answer is yes."""

    id: str
    passage: str
    question: str
    answer: bool


def read_boolq(home: Path | None = None) -> list[BoolqDoc]:
    """The 3,270 items of the validation split; 62.2 per cent are yes."""
    return [_doc(row, place) for place, row in enumerate(json_lines("boolq/validation.jsonl.gz", home))]


def _doc(row: Row, place: int) -> BoolqDoc:
    return BoolqDoc(
        id=str(place), passage=row.text("passage"), question=row.text("question"), answer=row.truth("answer")
    )
