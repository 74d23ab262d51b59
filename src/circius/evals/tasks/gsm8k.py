"""GSM8K, 8-shot with worked examples: maj@1 of the greedy answer, maj@8 of samples."""

from collections.abc import Sequence
from functools import partial

from circius.evals.data.sets.gsm8k import Gsm8kDoc, read_gsm8k
from circius.evals.item import Answer, Item, Text
from circius.evals.scoring.gsm8k import extract
from circius.evals.task import Judged, Sources, Task
from circius.evals.tasks.exemplars import read_exemplars
from circius.evals.tasks.settings import Settings
from circius.evals.tasks.voting import asked, judge_votes, n_samples, primary_of

N_SHOTS, N_VOTES = 8, 8
MAX_TOKENS = 512


def items(sources: Sources) -> list[Item]:
    return [Item(id=doc.id, doc=doc) for doc in read_gsm8k(sources.home)]


def beginning(_: Sources) -> str:
    """The eight examples of Wei et al. that every prompt begins with."""
    return "".join(f"Q: {shot['question']}\nA: {shot['answer']}\n\n" for shot in read_exemplars("gsm8k"))


def asks(item: Item, shots: str, *, n: int, settings: Settings) -> tuple[Text, ...]:
    doc: Gsm8kDoc = item.doc
    return asked(f"{shots}Q: {doc.question}\nA:", stop=("Q:",), max_tokens=MAX_TOKENS, n=n, settings=settings)


def judge(item: Item, answers: Sequence[Answer]) -> Judged:
    return judge_votes(answers, item.doc.answer, extract=extract, same=str.__eq__)


def task(settings: Settings) -> Task:
    n = n_samples(settings, N_VOTES)
    return Task(
        name="gsm8k",
        title="GSM8K",
        about=f"8-shot, the worked examples of Wei et al.; greedy maj@1, and {primary_of(n)} of samples that vote",
        items=items,
        shots=beginning,
        asks=partial(asks, n=n, settings=settings),
        judge=judge,
        data=("gsm8k",),
        primary=primary_of(n),
        n_shots=N_SHOTS,
        notes=("the paper does not give the temperature of its samples",),
    )
