"""WinoGrande, 0-shot, by partial evaluation: how likely the rest of the sentence is after each name."""

from collections.abc import Sequence

from circius.evals.choosing import judge_choice
from circius.evals.data.sets.winogrande import WinoGrandeDoc, read_winogrande
from circius.evals.item import Answer, Choices, Item
from circius.evals.task import Judged, Sources, Task


def items(sources: Sources) -> list[Item]:
    return [Item(id=doc.id, doc=doc) for doc in read_winogrande(sources.home)]


def asks(item: Item, _: object) -> tuple[Choices]:
    """Two contexts and one continuation; its likelihood after a context that says nothing is the same for both."""
    doc: WinoGrandeDoc = item.doc
    rest = f" {doc.after.strip()}"
    return (Choices(contexts=tuple(doc.before + option for option in doc.options), continuations=(rest, rest)),)


def judge(item: Item, answers: Sequence[Answer]) -> Judged:
    (ask,) = asks(item, None)
    return judge_choice(answers[0], ask.continuations, item.doc.gold, rule="raw")


TASK = Task(
    name="winogrande",
    title="WinoGrande",
    about="0-shot; the sentence up to the blank with each name, likelihood of what comes after it",
    items=items,
    asks=asks,
    judge=judge,
    data=("winogrande",),
    primary="raw",
)
