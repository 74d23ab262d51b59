"""OpenBookQA, 0-shot: which choice completes a stem, less how likely it is anyway."""

from collections.abc import Sequence

from circius.evals.choosing import SAYS_NOTHING, judge_choice
from circius.evals.data.sets.openbookqa import read_openbookqa
from circius.evals.data.sets.question import QuestionDoc
from circius.evals.item import Answer, Choices, Item
from circius.evals.task import Judged, Sources, Task


def items(sources: Sources) -> list[Item]:
    return [Item(id=doc.id, doc=doc) for doc in read_openbookqa(sources.home)]


def asks(item: Item, _: object) -> tuple[Choices]:
    doc: QuestionDoc = item.doc
    return (Choices.after(doc.question, [f" {choice}" for choice in doc.choices], SAYS_NOTHING),)


def judge(item: Item, answers: Sequence[Answer]) -> Judged:
    (ask,) = asks(item, None)
    return judge_choice(answers[0], ask.continuations, item.doc.gold, rule="minus_unconditional")


TASK = Task(
    name="openbookqa",
    title="OpenBookQA",
    about="0-shot; the stem and each choice, likelihood over that after `Answer:`; the test split",
    items=items,
    asks=asks,
    judge=judge,
    data=("openbookqa",),
    primary="minus_unconditional",
)
