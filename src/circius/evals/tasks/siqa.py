"""Social IQa, 0-shot: what somebody would do, feel or need, out of three."""

from collections.abc import Sequence

from circius.evals.choosing import SAYS_NOTHING, judge_choice
from circius.evals.data.sets.siqa import SiqaDoc, read_siqa
from circius.evals.item import Answer, Choices, Item
from circius.evals.task import Judged, Sources, Task


def items(sources: Sources) -> list[Item]:
    return [Item(id=doc.id, doc=doc) for doc in read_siqa(sources.home)]


def asks(item: Item, _: object) -> tuple[Choices]:
    doc: SiqaDoc = item.doc
    continuations = [f" {answer}" for answer in doc.answers]
    return (Choices.after(f"Q: {doc.context} {doc.question}\nA:", continuations, SAYS_NOTHING),)


def judge(item: Item, answers: Sequence[Answer]) -> Judged:
    (ask,) = asks(item, None)
    return judge_choice(answers[0], ask.continuations, item.doc.gold, rule="per_character")


TASK = Task(
    name="siqa",
    title="SIQA",
    about="0-shot; `Q: context question`, `A:` and each answer, likelihood by character",
    items=items,
    asks=asks,
    judge=judge,
    data=("siqa",),
    primary="per_character",
)
