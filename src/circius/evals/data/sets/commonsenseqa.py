"""CommonsenseQA: everyday questions with five choices."""

from pathlib import Path

from circius.evals.data.row import json_lines
from circius.evals.data.sets.question import QuestionDoc, questions


def read_commonsenseqa(home: Path | None = None) -> list[QuestionDoc]:
    """The 1,221 items of the development split."""
    return questions(json_lines("commonsenseqa/validation.jsonl.gz", home))
