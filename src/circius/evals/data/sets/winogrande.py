"""WinoGrande: which of two names fills the blank."""

from dataclasses import dataclass
from pathlib import Path

from circius.evals.data.row import Row, json_lines

BLANK = "_"


@dataclass(frozen=True, kw_only=True)
class WinoGrandeDoc:
    """A sentence around one blank: what stands before and after it, and the two names."""

    id: str
    before: str
    after: str
    options: tuple[str, str]
    gold: int


def read_winogrande(home: Path | None = None) -> list[WinoGrandeDoc]:
    """The 1,267 items of the development split."""
    return [_doc(row, place) for place, row in enumerate(json_lines("winogrande/validation.jsonl.gz", home))]


def _doc(row: Row, place: int) -> WinoGrandeDoc:
    before, blank, after = row.text("sentence").partition(BLANK)
    if not blank or BLANK in after:
        raise row.wrong(f"a sentence has one blank, got {row.text('sentence')!r:.80}")
    return WinoGrandeDoc(
        id=str(place),
        before=before,
        after=after,
        options=(row.text("option1"), row.text("option2")),
        gold=row.index("answer", 2, first=1),
    )
