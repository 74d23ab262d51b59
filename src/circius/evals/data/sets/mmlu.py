"""MMLU: questions of 57 subjects with four choices."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from circius.evals.data.row import Row, json_lines


@dataclass(frozen=True, kw_only=True)
class MmluDoc:
    """A question of a subject (with underscores for spaces), and its four choices."""

    id: str
    subject: str
    question: str
    choices: tuple[str, ...]
    gold: int


def read_mmlu(home: Path | None = None, *, split: Literal["test", "dev", "validation"] = "test") -> list[MmluDoc]:
    """The items of a split, subject by subject: 14,042 of test, 285 of dev (five a subject, the shots in this order),
    1,531 of validation.
    """
    docs: list[MmluDoc] = []
    n_of_subject: dict[str, int] = {}
    for row in json_lines(f"mmlu/{split}.jsonl.gz", home):
        place = n_of_subject.get(row.text("subject"), 0)
        n_of_subject[row.text("subject")] = place + 1
        docs.append(_doc(row, place))
    return docs


def _doc(row: Row, place: int) -> MmluDoc:
    choices = row.texts("choices")
    if len(choices) != 4:
        raise row.wrong(f"MMLU has four choices, got {len(choices)}")
    subject = row.text("subject")
    return MmluDoc(
        id=f"{subject}/{place}",
        subject=subject,
        question=row.text("question"),
        choices=choices,
        gold=row.index("answer", 4),
    )
