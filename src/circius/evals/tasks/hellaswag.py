"""HellaSwag, 0-shot: which of four endings goes on with a scene."""

import re
from collections.abc import Sequence

from circius.evals.choosing import SAYS_NOTHING, judge_choice
from circius.evals.data.sets.hellaswag import HellaSwagDoc, read_hellaswag
from circius.evals.item import Answer, Choices, Item
from circius.evals.task import Judged, Sources, Task

_BRACKETS = re.compile(r"\[.*?\]")


def cleaned(text: str) -> str:
    """The text without the marks that WikiHow's articles left in it.

    >>> cleaned("Cut it. [title] Then [substeps] wash  up.")
    'Cut it.. Then wash up.'
    """
    text = text.strip().replace(" [title]", ". ")
    return _BRACKETS.sub("", text).replace("  ", " ")


def items(sources: Sources) -> list[Item]:
    return [Item(id=doc.id, doc=doc) for doc in read_hellaswag(sources.home)]


def asks(item: Item, _: object) -> tuple[Choices]:
    doc: HellaSwagDoc = item.doc
    context = cleaned(f"{doc.activity}: {doc.context_a} {doc.context_b.capitalize()}")
    return (Choices.after(context, [f" {cleaned(ending)}" for ending in doc.endings], SAYS_NOTHING),)


def judge(item: Item, answers: Sequence[Answer]) -> Judged:
    (ask,) = asks(item, None)
    return judge_choice(answers[0], ask.continuations, item.doc.gold, rule="per_character")


TASK = Task(
    name="hellaswag",
    title="HellaSwag",
    about="0-shot; `activity: context` and each ending, likelihood by character",
    items=items,
    asks=asks,
    judge=judge,
    data=("hellaswag",),
    primary="per_character",
)
