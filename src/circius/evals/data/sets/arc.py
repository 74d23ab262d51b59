"""ARC: science questions from school, an easy and a challenge set. Most have four choices, a few three or five."""

from pathlib import Path
from typing import Literal

from circius.evals.data.row import json_lines
from circius.evals.data.sets.question import QuestionDoc, questions

Split = Literal["test", "validation"]


def read_arc_easy(home: Path | None = None, *, split: Split = "test") -> list[QuestionDoc]:
    """The items of ARC-Easy: 2,376 of test, 570 of validation."""
    return questions(json_lines(f"arc_easy/{split}.jsonl.gz", home))


def read_arc_challenge(home: Path | None = None, *, split: Split = "test") -> list[QuestionDoc]:
    """The items of ARC-Challenge: 1,172 of test, 299 of validation."""
    return questions(json_lines(f"arc_challenge/{split}.jsonl.gz", home))
