"""MMLU, 5-shot: 57 subjects, four choices, the likelihood of a letter."""

from collections.abc import Mapping, Sequence

from circius.evals.choosing import SAYS_NOTHING, judge_choice
from circius.evals.data.sets.mmlu import MmluDoc, read_mmlu
from circius.evals.item import Answer, Choices, Item
from circius.evals.task import Judged, Sources, Task

N_SHOTS = 5
_LETTERS = "ABCD"
_CONTINUATIONS = tuple(f" {letter}" for letter in _LETTERS)


def items(sources: Sources) -> list[Item]:
    return [Item(id=doc.id, doc=doc, part=doc.subject) for doc in read_mmlu(sources.home)]


def shots(sources: Sources) -> Mapping[str, str]:
    """What the prompts of each subject begin with: the five questions of dev, in the order of the file."""
    beginnings: dict[str, str] = {}
    for doc in read_mmlu(sources.home, split="dev"):
        begun = beginnings.get(doc.subject) or (
            f"The following are multiple choice questions (with answers) about {doc.subject.replace('_', ' ')}.\n\n"
        )
        beginnings[doc.subject] = f"{begun}{question(doc)} {_LETTERS[doc.gold]}\n\n"
    return beginnings


def question(doc: MmluDoc) -> str:
    """A question up to where its letter would stand."""
    listed = "".join(f"{letter}. {choice}\n" for letter, choice in zip(_LETTERS, doc.choices, strict=True))
    return f"{doc.question.strip()}\n{listed}Answer:"


def asks(item: Item, beginnings: Mapping[str, str]) -> tuple[Choices]:
    doc: MmluDoc = item.doc
    return (Choices.after(beginnings[doc.subject] + question(doc), _CONTINUATIONS, SAYS_NOTHING),)


def judge(item: Item, answers: Sequence[Answer]) -> Judged:
    return judge_choice(answers[0], _CONTINUATIONS, item.doc.gold, rule="raw")


TASK = Task(
    name="mmlu",
    title="MMLU",
    about="5-shot (dev, in file order); likelihood of the letter; raw over all questions, macro_raw over 57 subjects",
    items=items,
    shots=shots,
    asks=asks,
    judge=judge,
    data=("mmlu",),
    primary="raw",
    n_shots=N_SHOTS,
)
