"""BIG-Bench Hard: 27 tasks, each with three worked examples."""

import re
from dataclasses import dataclass
from pathlib import Path

from circius.base.errors import DataError
from circius.evals.data import store
from circius.evals.data.row import Row, json_file

TASKS = (
    "boolean_expressions", "causal_judgement", "date_understanding", "disambiguation_qa", "dyck_languages",
    "formal_fallacies", "geometric_shapes", "hyperbaton", "logical_deduction_five_objects",
    "logical_deduction_seven_objects", "logical_deduction_three_objects", "movie_recommendation",
    "multistep_arithmetic_two", "navigate", "object_counting", "penguins_in_a_table",
    "reasoning_about_colored_objects", "ruin_names", "salient_translation_error_detection", "snarks",
    "sports_understanding", "temporal_sequences", "tracking_shuffled_objects_five_objects",
    "tracking_shuffled_objects_seven_objects", "tracking_shuffled_objects_three_objects", "web_of_lies",
    "word_sorting",
)  # fmt: skip

_CANARY_ENDS = "\n-----\n"
_QUESTION = "\n\nQ: "
_ANSWER = "\nA: "
_STATED = re.compile(r"[Ss]o the answer is (.*?)\.?\s*$")


@dataclass(frozen=True, kw_only=True)
class BbhShot:
    """A worked example: its question, its reasoning (which ends in "So the answer is ..."), and the bare answer."""

    question: str
    reasoning: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class BbhDoc:
    """One question of a task and its answer."""

    id: str
    question: str
    target: str


@dataclass(frozen=True, kw_only=True)
class BbhTask:
    """A task: what it is about, its three examples, its questions."""

    name: str
    description: str
    shots: tuple[BbhShot, ...]
    docs: tuple[BbhDoc, ...]


def read_bbh(home: Path | None = None) -> list[BbhTask]:
    """All 27 tasks, 6,511 questions: 250 each, but 187, 146 and 178 of three."""
    return [read_bbh_task(name, home) for name in TASKS]


def read_bbh_task(name: str, home: Path | None = None) -> BbhTask:
    """One task; its name is one of `TASKS`."""
    path = f"bbh/bbh/{name}.json"
    rows = Row(json_file(path, home), path).rows("examples")
    description, shots = _prompt(f"bbh/cot-prompts/{name}.txt", home)
    docs = (
        BbhDoc(id=f"{name}/{place}", question=row.text("input"), target=row.text("target"))
        for place, row in enumerate(rows)
    )
    return BbhTask(name=name, description=description, shots=shots, docs=tuple(docs))


def _prompt(path: str, home: Path | None) -> tuple[str, tuple[BbhShot, ...]]:
    canary, dashes, prompt = store.read_text(path, home).partition(_CANARY_ENDS)
    # The first line is no part of the prompt: it marks the file so that it can be kept out of training data.
    if not dashes or "\n" in canary:
        raise DataError(f"{path}: expected one line, then -----, then the prompt")
    description, *examples = prompt.split(_QUESTION)
    return description, tuple(_shot(example, path) for example in examples)


def _shot(example: str, path: str) -> BbhShot:
    question, marker, reasoning = example.partition(_ANSWER)
    stated = _STATED.search(reasoning)
    if not marker or stated is None:
        raise DataError(f"{path}: an example has a question and reasoning that states an answer, got {example!r:.80}")
    return BbhShot(question=question, reasoning=reasoning.rstrip(), answer=stated[1])
