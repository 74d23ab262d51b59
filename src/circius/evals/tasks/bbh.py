"""BIG-Bench Hard, 3-shot: the bare answer, and the answer behind reasoning; exact match over 27 tasks."""

from collections.abc import Mapping, Sequence

from circius.evals.data.sets.bbh import BbhDoc, BbhTask, read_bbh
from circius.evals.item import Answer, Item, Text, text_of
from circius.evals.scoring.bbh import extract_cot, extract_direct, is_right
from circius.evals.task import MACRO, Judged, Sources, Task

N_SHOTS = 3
DIRECT_TOKENS, COT_TOKENS = 128, 512
_THINKS = "Let's think step by step."


def items(sources: Sources) -> list[Item]:
    return [Item(id=doc.id, doc=doc, part=task.name) for task in read_bbh(sources.home) for doc in task.docs]


def direct_shots(sources: Sources) -> Mapping[str, str]:
    """What the prompts of each task begin with, its examples without their reasoning."""
    return {task.name: _beginning(task, [shot.answer for shot in task.shots]) for task in read_bbh(sources.home)}


def cot_shots(sources: Sources) -> Mapping[str, str]:
    """The same with their reasoning, as published."""
    return {task.name: _beginning(task, [shot.reasoning for shot in task.shots]) for task in read_bbh(sources.home)}


def direct_asks(item: Item, beginnings: Mapping[str, str]) -> tuple[Text]:
    doc: BbhDoc = item.doc
    prompt = f"{beginnings[item.part]}Q: {doc.question}\nA:"
    return (Text(prompt=prompt, stop=("\n\n", "\nQ:"), max_tokens=DIRECT_TOKENS),)


def cot_asks(item: Item, beginnings: Mapping[str, str]) -> tuple[Text]:
    doc: BbhDoc = item.doc
    prompt = f"{beginnings[item.part]}Q: {doc.question}\nA: {_THINKS}"
    return (Text(prompt=prompt, stop=("\nQ:",), max_tokens=COT_TOKENS),)


def direct_judge(item: Item, answers: Sequence[Answer]) -> Judged:
    return _judged(item.doc, extract_direct(text_of(answers)))


def cot_judge(item: Item, answers: Sequence[Answer]) -> Judged:
    return _judged(item.doc, extract_cot(text_of(answers)))


def _beginning(task: BbhTask, answers: Sequence[str]) -> str:
    shots = "".join(f"Q: {shot.question}\nA: {answer}\n\n" for shot, answer in zip(task.shots, answers, strict=True))
    return f"{task.description}\n\n{shots}"


def _judged(doc: BbhDoc, said: str | None) -> Judged:
    return Judged(values={"exact_match": float(is_right(said, doc.target))}, said=said, gold=doc.target)


DIRECT = Task(
    name="bbh",
    title="BBH",
    about="3-shot, the bare answer; greedy, exact match, mean over 27 tasks",
    items=items,
    data=("bbh",),
    shots=direct_shots,
    asks=direct_asks,
    judge=direct_judge,
    primary=f"{MACRO}exact_match",
    n_shots=N_SHOTS,
    is_balanced=True,
    notes=("whether the paper's BBH is with or without reasoning is not known: see bbh_cot",),
)
COT = Task(
    name="bbh_cot",
    title="BBH with reasoning",
    about="3-shot with reasoning; greedy, exact match of the answer it states, mean over 27 tasks",
    items=items,
    data=("bbh",),
    shots=cot_shots,
    asks=cot_asks,
    judge=cot_judge,
    primary=f"{MACRO}exact_match",
    n_shots=N_SHOTS,
    is_balanced=True,
)
