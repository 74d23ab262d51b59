"""The answers to MT-Bench's questions, as FastChat asks for them (llm_judge, commit 0e6d3e4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from circius.base.errors import DataError
from circius.evals.chats import Turn
from circius.evals.data.sets.mt_bench import MtBenchDoc

MAX_TOKENS = 1024
TEMPERATURES: Mapping[str, float] = MappingProxyType(
    {
        "writing": 0.7,
        "roleplay": 0.7,
        "extraction": 0.0,
        "math": 0.0,
        "coding": 0.0,
        "reasoning": 0.0,
        "stem": 0.1,
        "humanities": 0.1,
    }
)
"""By category."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One model's answers to both turns of a question, at one seed. is_cut: which of them `max_tokens` cut off."""

    question: str
    seed: int
    turns: tuple[str, ...]
    is_cut: tuple[bool, ...]

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Answer":
        return cls(question=row["question"], seed=row["seed"], turns=tuple(row["turns"]), is_cut=tuple(row["is_cut"]))


def check_questions(docs: Sequence[MtBenchDoc]) -> None:
    """Does nothing if every question has a category whose temperature is known.

    Raises:
        DataError: one has not.
    """
    for doc in docs:
        if doc.category not in TEMPERATURES:
            raise DataError(
                f"question {doc.id} is of the category {doc.category!r}, whose temperature nobody knows: use "
                f"{', '.join(TEMPERATURES)}"
            )


def next_turn(doc: MtBenchDoc, said: Sequence[str], *, seed: int, max_tokens: int) -> Turn:
    """The next question to the model, after what it has said to those before."""
    messages = []
    for asked, answered in zip(doc.turns, said, strict=False):
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    messages.append({"role": "user", "content": doc.turns[len(said)]})
    return Turn(messages=tuple(messages), temperature=TEMPERATURES[doc.category], max_tokens=max_tokens, seed=seed)
