"""HumanEval: functions to complete, with tests that decide."""

from dataclasses import dataclass
from pathlib import Path

from circius.evals.data.row import Row, json_lines


@dataclass(frozen=True, kw_only=True)
class HumanEvalDoc:
    """The beginning of a function, its body by the authors, tests that define `check`, and the function's name."""

    id: str
    prompt: str
    solution: str
    test: str
    entry_point: str


def read_humaneval(home: Path | None = None) -> list[HumanEvalDoc]:
    """The 164 items."""
    return list(map(_doc, json_lines("humaneval/test.jsonl.gz", home)))


def _doc(row: Row) -> HumanEvalDoc:
    return HumanEvalDoc(
        id=row.text("task_id"),
        prompt=row.text("prompt"),
        solution=row.text("canonical_solution"),
        test=row.text("test"),
        entry_point=row.text("entry_point"),
    )
