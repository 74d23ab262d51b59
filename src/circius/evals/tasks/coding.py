"""Programs that a model writes, run against tests: HumanEval, 0-shot, and MBPP, 3-shot."""

from collections.abc import Callable, Sequence
from functools import partial

from circius.evals.data.sets.humaneval import HumanEvalDoc, read_humaneval
from circius.evals.data.sets.mbpp import MbppDoc, read_mbpp
from circius.evals.item import Answer, Item, Text, TextAnswer
from circius.evals.scoring.code import HUMANEVAL_STOPS, MBPP_STOPS, humaneval_program, mbpp_program
from circius.evals.scoring.pass_at_k import pass_at_k
from circius.evals.task import Judged, Sources, Task
from circius.evals.tasks.settings import RunPrograms, Settings

HUMANEVAL_TOKENS, MBPP_TOKENS = 1024, 256
TEMPERATURE, TOP_P = 0.2, 0.95
"""Of the samples beside the greedy program: Codex's for pass@1."""
_SHOT_NUMBERS = (2, 3, 4)
_KS = (1, 10, 100)


def programs(prompt: str, *, stop: tuple[str, ...], max_tokens: int, settings: Settings) -> tuple[Text, ...]:
    """The greedy program, and samples if any were asked for."""
    greedy = Text(prompt=prompt, stop=stop, max_tokens=max_tokens)
    if not settings.samples:
        return (greedy,)
    drawn = Text(
        prompt=prompt,
        stop=stop,
        max_tokens=max_tokens,
        n=settings.samples,
        temperature=TEMPERATURE if settings.temperature is None else settings.temperature,
        top_p=TOP_P if settings.top_p is None else settings.top_p,
    )
    return greedy, drawn


def judge_programs(answers: Sequence[Answer], whole: Callable[[str], str], run: RunPrograms) -> Judged:
    """pass@1 of the greedy program; of n samples the unbiased pass@k for every usual k."""
    greedy, *drawn = answers
    assert isinstance(greedy, TextAnswer)
    ((passed, why),) = run([whole(greedy.text)])
    values, said = {"pass@1": float(passed)}, {"pass@1": why}
    for answer in drawn:
        assert isinstance(answer, TextAnswer)
        n = len(answer.samples)
        n_passed = sum(own for own, _ in run([whole(sample.text) for sample in answer.samples]))
        values |= {f"sampled_pass@{k}": pass_at_k(n, n_passed, k) for k in _KS if k <= n}
        said["samples"] = f"{n_passed} of {n} passed"
    return Judged(values=values, said=said)


def humaneval_items(sources: Sources) -> list[Item]:
    return [Item(id=doc.id, doc=doc) for doc in read_humaneval(sources.home)]


def humaneval_asks(item: Item, _: object, *, settings: Settings) -> tuple[Text, ...]:
    return programs(item.doc.prompt, stop=HUMANEVAL_STOPS, max_tokens=HUMANEVAL_TOKENS, settings=settings)


def humaneval_judge(item: Item, answers: Sequence[Answer], *, settings: Settings) -> Judged:
    doc: HumanEvalDoc = item.doc
    return judge_programs(
        answers, lambda text: humaneval_program(doc.prompt, text, doc.test, doc.entry_point), settings.run_programs
    )


def humaneval(settings: Settings) -> Task:
    return Task(
        name="humaneval",
        title="HumanEval",
        about="0-shot; the beginning of a function as it stands, greedy, its tests decide",
        items=humaneval_items,
        data=("humaneval",),
        asks=partial(humaneval_asks, settings=settings),
        judge=partial(humaneval_judge, settings=settings),
        primary="pass@1",
        runs_code=True,
    )


def mbpp_items(sources: Sources) -> list[Item]:
    """All hand-verified tasks but the three that are shots."""
    return [Item(id=doc.id, doc=doc) for doc in read_mbpp(sources.home) if doc.task_id not in _SHOT_NUMBERS]


def mbpp_shots(sources: Sources) -> str:
    """Tasks 2, 3 and 4 of the same file, as their authors chose them."""
    shots = {doc.task_id: doc for doc in read_mbpp(sources.home)}
    return "".join(f"{mbpp_prompt(shots[n])}{shots[n].code}\n[DONE]\n\n" for n in _SHOT_NUMBERS)


def mbpp_prompt(doc: MbppDoc) -> str:
    tests = "\n".join(doc.tests)
    return (
        f"You are an expert Python programmer, and here is your task: {doc.prompt} "
        f"Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"
    )


def mbpp_asks(item: Item, shots: str, *, settings: Settings) -> tuple[Text, ...]:
    prompt = shots + mbpp_prompt(item.doc)
    return programs(prompt, stop=MBPP_STOPS, max_tokens=MBPP_TOKENS, settings=settings)


def mbpp_judge(item: Item, answers: Sequence[Answer], *, settings: Settings) -> Judged:
    """Every task counts for `pass@1_of_424`, those of the test split for `pass@1` as well."""
    doc: MbppDoc = item.doc
    judged = judge_programs(answers, lambda text: mbpp_program(text, doc.tests, doc.set_up), settings.run_programs)
    values = {"pass@1_of_424": judged.values["pass@1"]}
    if doc.split == "test":
        values |= judged.values
    return Judged(values=values, said=judged.said)


def mbpp(settings: Settings) -> Task:
    return Task(
        name="mbpp",
        title="MBPP",
        about="3-shot (tasks 2, 3, 4); hand-verified tasks 11 to 510, greedy, their tests decide",
        items=mbpp_items,
        data=("mbpp",),
        shots=mbpp_shots,
        asks=partial(mbpp_asks, settings=settings),
        judge=partial(mbpp_judge, settings=settings),
        primary="pass@1",
        n_shots=3,
        runs_code=True,
        notes=(
            "pass@1 is over the 257 hand-verified tasks of the test split, pass@1_of_424 over all that are no shots",
        ),
    )
