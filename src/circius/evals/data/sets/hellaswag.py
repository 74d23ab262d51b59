"""HellaSwag: which of four endings goes on with a scene."""

from dataclasses import dataclass
from pathlib import Path

from circius.evals.data.row import Row, json_lines


@dataclass(frozen=True, kw_only=True)
class HellaSwagDoc:
    """A scene in two parts, as the file has them (brackets and all), and its endings."""

    id: str
    activity: str
    context_a: str
    context_b: str
    endings: tuple[str, ...]
    gold: int


def read_hellaswag(home: Path | None = None) -> list[HellaSwagDoc]:
    """The 10,042 items of the validation split."""
    return [_doc(row, place) for place, row in enumerate(json_lines("hellaswag/validation.jsonl.gz", home))]


def _doc(row: Row, place: int) -> HellaSwagDoc:
    endings = row.texts("endings")
    return HellaSwagDoc(
        id=str(place),  # the file's own `ind` counts videos, not items: several items may have the same
        activity=row.text("activity_label"),
        context_a=row.text("ctx_a"),
        context_b=row.text("ctx_b"),
        endings=endings,
        gold=row.index("label", len(endings)),
    )
