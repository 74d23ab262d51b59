"""AGIEval, 3- to 5-shot: eight English sets of multiple choice from exams, by the official prompt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from circius.evals.choosing import SAYS_NOTHING, judge_choice
from circius.evals.data.sets.agieval import LETTERS, SETS, AgiEvalDoc, read_agieval, read_agieval_shots
from circius.evals.item import Answer, Choices, Item, Text, TextAnswer
from circius.evals.scoring.agieval import letter
from circius.evals.task import MACRO, Judged, Sources, Task

MAX_TOKENS = 16
_STATES = "The answer is therefore"


@dataclass(frozen=True)
class Beginning:
    """What the prompts of a set begin with, and the number of the problem that comes after its examples."""

    text: str
    number: int


def items(sources: Sources) -> list[Item]:
    return [Item(id=doc.id, doc=doc, part=name) for name in SETS for doc in read_agieval(name, sources.home)]


def shots(sources: Sources) -> Mapping[str, Beginning]:
    beginnings = {}
    for name in SETS:
        examples = read_agieval_shots(name, sources.home)
        solved = (f"{problem(doc, n)}{_STATES} {doc.label}\n\n" for n, doc in enumerate(examples, start=1))
        text = "Here are the answers for the problems in the exam.\n" + "".join(solved)
        beginnings[name] = Beginning(text, len(examples) + 1)
    return beginnings


def problem(doc: AgiEvalDoc, number: int) -> str:
    """A problem in the official form, spaces and all."""
    options = " ".join(doc.options)
    return f"Problem {number}.   {doc.passage} {doc.question}\nChoose from the following options:    {options}\n"


def asks(item: Item, beginnings: Mapping[str, Beginning]) -> tuple[Choices, Text]:
    """How likely each letter is where the answer would be stated, and what the model writes by itself."""
    doc: AgiEvalDoc = item.doc
    beginning = beginnings[item.part]
    prompt = beginning.text + problem(doc, beginning.number)
    return (
        Choices.after(f"{prompt}{_STATES}", _letters(doc), SAYS_NOTHING),
        Text(prompt=prompt, stop=("\n\n",), max_tokens=MAX_TOKENS),
    )


def judge(item: Item, answers: Sequence[Answer]) -> Judged:
    doc: AgiEvalDoc = item.doc
    likelihoods, written = answers
    assert isinstance(written, TextAnswer)
    chosen = judge_choice(likelihoods, _letters(doc), LETTERS.index(doc.label), rule="raw")
    said = letter(written.text, doc.letters)
    return Judged(
        values={**chosen.values, "greedy": float(said == doc.label)},
        said={**chosen.said, "greedy": said},
        gold=doc.label,
    )


def _letters(doc: AgiEvalDoc) -> tuple[str, ...]:
    return tuple(f" {own}" for own in doc.letters)


TASK = Task(
    name="agieval",
    title="AGIEval",
    about="3- to 5-shot, the official prompt; likelihood of the letter, mean over eight English sets; greedy beside it",
    items=items,
    shots=shots,
    asks=asks,
    judge=judge,
    data=("agieval",),
    primary=f"{MACRO}raw",
    n_shots=5,
    is_balanced=True,
)
