"""BoolQ, 0-shot: yes or no, from a passage."""

from collections.abc import Sequence

from circius.evals.choosing import SAYS_NOTHING, judge_choice
from circius.evals.data.sets.boolq import BoolqDoc, read_boolq
from circius.evals.item import Answer, Choices, Item
from circius.evals.task import Judged, Sources, Task

_WORDS = (" no", " yes")


def items(sources: Sources) -> list[Item]:
    return [Item(id=doc.id, doc=doc) for doc in read_boolq(sources.home)]


def asks(item: Item, _: object) -> tuple[Choices]:
    doc: BoolqDoc = item.doc
    return (Choices.after(f"{doc.passage}\nQuestion: {doc.question}?\nAnswer:", _WORDS, SAYS_NOTHING),)


def judge(item: Item, answers: Sequence[Answer]) -> Judged:
    return judge_choice(answers[0], _WORDS, int(item.doc.answer), rule="minus_unconditional")


TASK = Task(
    name="boolq",
    title="BoolQ",
    about="0-shot; passage, `Question: question?`, `Answer:`, yes or no, likelihood over that after `Answer:`",
    items=items,
    asks=asks,
    judge=judge,
    data=("boolq",),
    primary="minus_unconditional",
    notes=("Mistral's card gives 83.52, which plain likelihood (raw) comes nearest to in other pipelines",),
)
