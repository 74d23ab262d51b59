"""PIQA: which of two ways reaches a goal."""

from dataclasses import dataclass
from pathlib import Path

from circius.evals.data.row import Row, json_lines


@dataclass(frozen=True, kw_only=True)
class PiqaDoc:
    """A goal and two ways to it."""

    id: str
    goal: str
    solutions: tuple[str, str]
    gold: int


def read_piqa(home: Path | None = None) -> list[PiqaDoc]:
    """The 1,838 items of the validation split."""
    return [_doc(row, place) for place, row in enumerate(json_lines("piqa/validation.jsonl.gz", home))]


def _doc(row: Row, place: int) -> PiqaDoc:
    return PiqaDoc(
        id=str(place), goal=row.text("goal"), solutions=(row.text("sol1"), row.text("sol2")), gold=row.index("label", 2)
    )
