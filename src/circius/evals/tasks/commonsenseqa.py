"""CommonsenseQA, 0-shot: five choices, scored as texts (LLaMA-1's way), and as letters (lm-eval's) beside it."""

from collections.abc import Sequence

from circius.evals.choosing import SAYS_NOTHING, joined, judge_choice
from circius.evals.data.sets.commonsenseqa import read_commonsenseqa
from circius.evals.data.sets.question import QuestionDoc
from circius.evals.item import Answer, Choices, Item
from circius.evals.task import Judged, Sources, Task

_LETTERS = "ABCDE"


def items(sources: Sources) -> list[Item]:
    return [Item(id=doc.id, doc=doc) for doc in read_commonsenseqa(sources.home)]


def asks(item: Item, _: object) -> tuple[Choices, Choices]:
    doc: QuestionDoc = item.doc
    listed = "".join(f"{letter}. {choice}\n" for letter, choice in zip(_LETTERS, doc.choices, strict=True))
    question = doc.question.strip()
    return (
        Choices.after(f"Question: {question}\nAnswer:", [f" {choice}" for choice in doc.choices], SAYS_NOTHING),
        Choices.after(f"Question: {question}\n{listed}Answer:", [f" {letter}" for letter in _LETTERS], SAYS_NOTHING),
    )


def judge(item: Item, answers: Sequence[Answer]) -> Judged:
    cloze, letters = asks(item, None)
    gold = item.doc.gold
    return joined(
        judge_choice(answers[0], cloze.continuations, gold, rule="per_character"),
        judge_choice(answers[1], letters.continuations, gold, rule="raw", prefix="letters_"),
    )


TASK = Task(
    name="commonsenseqa",
    title="CommonsenseQA",
    about="0-shot; `Question: question`, `Answer:` and each choice, likelihood by character; letters beside it",
    items=items,
    asks=asks,
    judge=judge,
    data=("commonsenseqa",),
    primary="per_character",
)
