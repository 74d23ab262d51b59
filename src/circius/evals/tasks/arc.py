"""ARC, easy and challenge, 0-shot: science questions from school."""

from collections.abc import Sequence

from circius.evals.choosing import SAYS_NOTHING, judge_choice
from circius.evals.data.sets.arc import read_arc_challenge, read_arc_easy
from circius.evals.data.sets.question import QuestionDoc
from circius.evals.item import Answer, Choices, Item
from circius.evals.task import Judged, Sources, Task


def easy(sources: Sources) -> list[Item]:
    return [Item(id=doc.id, doc=doc) for doc in read_arc_easy(sources.home)]


def challenge(sources: Sources) -> list[Item]:
    return [Item(id=doc.id, doc=doc) for doc in read_arc_challenge(sources.home)]


def asks(item: Item, _: object) -> tuple[Choices]:
    doc: QuestionDoc = item.doc
    continuations = [f" {choice}" for choice in doc.choices]
    return (Choices.after(f"Question: {doc.question}\nAnswer:", continuations, SAYS_NOTHING),)


def judge(item: Item, answers: Sequence[Answer]) -> Judged:
    (ask,) = asks(item, None)
    return judge_choice(answers[0], ask.continuations, item.doc.gold, rule="per_character")


_ABOUT = "0-shot; `Question: question`, `Answer:` and each choice, likelihood by character; the test split"

EASY = Task(
    name="arc_easy",
    title="ARC-Easy",
    about=_ABOUT,
    items=easy,
    data=("arc_easy",),
    asks=asks,
    judge=judge,
    primary="per_character",
)
CHALLENGE = Task(
    name="arc_challenge",
    title="ARC-Challenge",
    about=_ABOUT,
    items=challenge,
    data=("arc_challenge",),
    asks=asks,
    judge=judge,
    primary="per_character",
)
