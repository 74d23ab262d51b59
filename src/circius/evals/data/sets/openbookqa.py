"""OpenBookQA: science questions whose stem a choice completes."""

from pathlib import Path
from typing import Literal

from circius.evals.data.row import json_lines
from circius.evals.data.sets.question import QuestionDoc, questions


def read_openbookqa(home: Path | None = None, *, split: Literal["test", "validation"] = "test") -> list[QuestionDoc]:
    """The 500 items of a split; the paper's is test."""
    return questions(json_lines(f"openbookqa/{split}.jsonl.gz", home))
