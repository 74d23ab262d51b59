"""Social IQa: what somebody would do, feel or need, out of three."""

from dataclasses import dataclass
from pathlib import Path

from circius.evals.data.row import Row, json_lines


@dataclass(frozen=True, kw_only=True)
class SiqaDoc:
    """A situation, a question about it and three answers."""

    id: str
    context: str
    question: str
    answers: tuple[str, str, str]
    gold: int


def read_siqa(home: Path | None = None) -> list[SiqaDoc]:
    """The 1,954 items of the development split."""
    return [_doc(row, place) for place, row in enumerate(json_lines("siqa/validation.jsonl.gz", home))]


def _doc(row: Row, place: int) -> SiqaDoc:
    return SiqaDoc(
        id=str(place),
        context=row.text("context"),
        question=row.text("question"),
        answers=(row.text("answerA"), row.text("answerB"), row.text("answerC")),
        gold=row.index("label", 3, first=1),
    )
