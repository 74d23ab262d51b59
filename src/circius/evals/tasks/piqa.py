"""PIQA, 0-shot: which of two ways reaches a goal."""

from collections.abc import Sequence

from circius.evals.choosing import SAYS_NOTHING, judge_choice
from circius.evals.data.sets.piqa import PiqaDoc, read_piqa
from circius.evals.item import Answer, Choices, Item
from circius.evals.task import Judged, Sources, Task


def items(sources: Sources) -> list[Item]:
    return [Item(id=doc.id, doc=doc) for doc in read_piqa(sources.home)]


def asks(item: Item, _: object) -> tuple[Choices]:
    doc: PiqaDoc = item.doc
    solutions = [f" {solution}" for solution in doc.solutions]
    return (Choices.after(f"Question: {doc.goal}\nAnswer:", solutions, SAYS_NOTHING),)


def judge(item: Item, answers: Sequence[Answer]) -> Judged:
    (ask,) = asks(item, None)
    return judge_choice(answers[0], ask.continuations, item.doc.gold, rule="per_character")


TASK = Task(
    name="piqa",
    title="PIQA",
    about="0-shot; `Question: goal`, `Answer:` and each solution, likelihood by character",
    items=items,
    asks=asks,
    judge=judge,
    data=("piqa",),
    primary="per_character",
)
