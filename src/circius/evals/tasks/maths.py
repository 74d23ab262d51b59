"""MATH, 4-shot with Minerva's examples: maj@1 of the greedy answer, maj@4 of samples."""

from collections.abc import Sequence
from functools import partial

from circius.evals.data.sets.maths import MathDoc, read_math
from circius.evals.item import Answer, Item, Text
from circius.evals.scoring.equality import is_equal
from circius.evals.scoring.maths import extract
from circius.evals.task import Judged, Sources, Task
from circius.evals.tasks.exemplars import read_exemplars
from circius.evals.tasks.settings import Settings
from circius.evals.tasks.voting import asked, judge_votes, n_samples, primary_of

N_SHOTS, N_VOTES = 4, 4
MAX_TOKENS = 512


def items(sources: Sources) -> list[Item]:
    return [Item(id=doc.id, doc=doc, part=doc.subject) for doc in read_math(sources.home)]


def beginning(_: Sources) -> str:
    """Minerva's four examples, which every prompt begins with."""
    return "".join(f"{_problem(shot['problem'])} {shot['solution']}\n\n" for shot in read_exemplars("math"))


def asks(item: Item, shots: str, *, n: int, settings: Settings) -> tuple[Text, ...]:
    doc: MathDoc = item.doc
    prompt = f"{shots}{_problem(doc.problem)}"
    return asked(prompt, stop=("Problem:",), max_tokens=MAX_TOKENS, n=n, settings=settings)


def judge(item: Item, answers: Sequence[Answer]) -> Judged:
    return judge_votes(answers, item.doc.answer, extract=extract, same=is_equal)


def task(settings: Settings) -> Task:
    n = n_samples(settings, N_VOTES)
    return Task(
        name="math",
        title="MATH",
        about=f"4-shot, Minerva's examples; greedy maj@1, and {primary_of(n)} of samples that vote",
        items=items,
        shots=beginning,
        asks=partial(asks, n=n, settings=settings),
        judge=judge,
        data=("math",),
        primary=primary_of(n),
        n_shots=N_SHOTS,
        notes=("the paper does not give the temperature of its samples",),
    )


def _problem(problem: str) -> str:
    return f"Problem:\n{problem}\n\nSolution:"
