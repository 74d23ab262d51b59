"""MBPP: short programs from a sentence and tests. The hand-verified ("sanitized") file is the paper's.

Hand-verifying changed prompts and tests, so shots must come from the same file as the items.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from circius.evals.data.row import Row, json_file, json_lines

Split = Literal["prompting", "test", "validation", "training"]

_SPLITS: tuple[tuple[range, Split], ...] = (
    (range(1, 11), "prompting"),
    (range(11, 511), "test"),
    (range(511, 601), "validation"),
    (range(601, 975), "training"),
)
_SANITISED = "mbpp/sanitized-mbpp.json"


@dataclass(frozen=True, kw_only=True)
class MbppDoc:
    """A task: the sentence, the authors' program, the asserts, what to run before these, and the split by number."""

    id: str
    task_id: int
    prompt: str
    code: str
    tests: tuple[str, ...]
    set_up: tuple[str, ...]
    split: Split


def read_mbpp(home: Path | None = None) -> list[MbppDoc]:
    """The 427 hand-verified tasks: 7 for prompting (2, 3, 4 are the shots), 257 of test, 43 and 120."""
    rows = Row({"tasks": json_file(_SANITISED, home)}, _SANITISED).rows("tasks")
    return [_doc(row, prompt="prompt", set_up=row.texts("test_imports")) for row in rows]


def read_mbpp_full(home: Path | None = None) -> list[MbppDoc]:
    """The 500 tasks of the full file's test split, which lm-eval uses: for comparison with it."""
    return [
        _doc(row, prompt="text", set_up=tuple(filter(None, (row.text("test_setup_code"),))))
        for row in json_lines("mbpp/test.jsonl.gz", home)
    ]


def split_of(task_id: int) -> Split:
    """The split of a task, which its number says.

    >>> split_of(2), split_of(11), split_of(510), split_of(511), split_of(974)
    ('prompting', 'test', 'test', 'validation', 'training')
    """
    return next(split for numbers, split in _SPLITS if task_id in numbers)


def _doc(row: Row, *, prompt: str, set_up: tuple[str, ...]) -> MbppDoc:
    task_id, tests = row.whole("task_id"), row.texts("test_list")
    if not 1 <= task_id <= 974 or not tests:
        raise row.wrong(f"a task has a number from 1 to 974 and at least one test, got {task_id} and {len(tests)}")
    return MbppDoc(
        id=str(task_id),
        task_id=task_id,
        prompt=row.text(prompt),
        code=row.text("code"),
        tests=tests,
        set_up=set_up,
        split=split_of(task_id),
    )
