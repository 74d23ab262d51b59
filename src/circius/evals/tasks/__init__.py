"""The benchmarks of the paper, and the suites in which they are run."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from circius.base.errors import InvalidInputError
from circius.evals.task import Task
from circius.evals.tasks import (
    agieval,
    arc,
    bbh,
    boolq,
    coding,
    commonsenseqa,
    gsm8k,
    hellaswag,
    maths,
    mmlu,
    open_questions,
    openbookqa,
    perplexity,
    piqa,
    quac,
    siqa,
    winogrande,
)
from circius.evals.tasks.settings import Settings

_FIXED = (
    hellaswag.TASK,
    winogrande.TASK,
    piqa.TASK,
    siqa.TASK,
    openbookqa.TASK,
    arc.EASY,
    arc.CHALLENGE,
    commonsenseqa.TASK,
    open_questions.NATURALQUESTIONS,
    open_questions.TRIVIAQA,
    boolq.TASK,
    quac.TASK,
    mmlu.TASK,
    bbh.DIRECT,
    bbh.COT,
    agieval.TASK,
    perplexity.PERPLEXITY,
    perplexity.BITS_PER_BYTE,
    perplexity.WIKITEXT,
    perplexity.WIKITEXT_CHUNKS,
)
_MADE: Mapping[str, Callable[[Settings], Task]] = MappingProxyType(
    {"gsm8k": gsm8k.task, "math": maths.task, "humaneval": coding.humaneval, "mbpp": coding.mbpp}
)
NAMES = (*(task.name for task in _FIXED), *_MADE)

COMMONSENSE = (
    "hellaswag", "winogrande", "piqa", "siqa", "openbookqa", "arc_easy", "arc_challenge", "commonsenseqa",
)  # fmt: skip
KNOWLEDGE = ("naturalquestions", "triviaqa")
READING = ("boolq", "quac")
MATH = ("gsm8k", "math")
CODE = ("humaneval", "mbpp")
AGGREGATE = ("mmlu", "bbh", "bbh_cot", "agieval")

OF_A_TEXT = ("perplexity", "bits_per_byte", "wikitext2", "wikitext2_chunks")
"""Tasks whose items are a text of the user's."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Tasks that are run together; `limit` and `samples` unless the user says otherwise."""

    about: str
    tasks: tuple[str, ...]
    limit: int | None = None
    samples: int | None = None


SUITES: Mapping[str, Suite] = MappingProxyType(
    {
        "paper": Suite(
            about="everything that the paper measures",
            tasks=(*COMMONSENSE, *KNOWLEDGE, *READING, *MATH, *CODE, *AGGREGATE),
        ),
        "commonsense": Suite(about="eight sets of everyday reasoning, 0-shot", tasks=COMMONSENSE),
        "knowledge": Suite(about="questions without context, 5-shot", tasks=KNOWLEDGE),
        "reading": Suite(about="questions about a passage, 0-shot", tasks=READING),
        "math": Suite(about="word problems and competitions, with votes", tasks=MATH),
        "code": Suite(about="programs, run against tests", tasks=CODE),
        "aggregate": Suite(about="MMLU, BBH both ways, AGIEval", tasks=AGGREGATE),
        "quick": Suite(
            about="100 items each of nine tasks, always the same ones",
            tasks=(
                "hellaswag", "winogrande", "piqa", "openbookqa", "arc_easy", "arc_challenge", "boolq", "triviaqa",
                "mmlu",
            ),
            limit=100,
            samples=0,
        ),
    }
)  # fmt: skip


def make_task(name: str, settings: Settings) -> Task:
    """The task of that name.

    Raises:
        InvalidInputError: there is none; the message names what is close to it.
    """
    if name in _MADE:
        return _MADE[name](settings)
    found = next((task for task in _FIXED if task.name == name), None)
    if found is None:
        raise InvalidInputError(f"no task {name!r}: use {', '.join(NAMES)}{_close(name, NAMES)}")
    return found


def find_suite(name: str) -> Suite:
    """The suite of that name.

    Raises:
        InvalidInputError: there is none.
    """
    if name not in SUITES:
        raise InvalidInputError(f"no suite {name!r}: use {', '.join(SUITES)}{_close(name, tuple(SUITES))}")
    return SUITES[name]


def _close(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name.lower(), known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
