"""What a judge is asked, and the rating in what he says."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence

from circius.base.errors import DataError
from circius.evals.chats import Turn
from circius.evals.data.sets.mt_bench import JudgePrompt, MtBenchDoc

MAX_TOKENS = 2048
WITH_REFERENCE = ("math", "reasoning", "coding")
"""The categories whose judge is given GPT-4's answers to compare with."""
PROMPTS = ("single-v1", "single-v1-multi-turn", "single-math-v1", "single-math-v1-multi-turn")
LOWEST, HIGHEST = 1.0, 10.0

_RATING = re.compile(r"\[\[(\d+\.?\d*)\]\]")
_LOOSE_RATING = re.compile(r"\[(\d+\.?\d*)\]")
_PLACE = re.compile(r"\{(\w+)\}")


def rating_in(text: str) -> float | None:
    """The rating that a judgement ends with; None if there is none, or none from 1 to 10.

    The first `[[7]]` counts, else the first `[7]`, as in FastChat, which however lets any number pass.

    >>> rating_in("Good. Rating: [[7.5]]"), rating_in("Rating: [8]"), rating_in("eight of ten"), rating_in("[[95]]")
    (7.5, 8.0, None, None)
    """
    found = _RATING.search(text) or _LOOSE_RATING.search(text)
    if found is None or not LOWEST <= float(found[1]) <= HIGHEST:
        return None
    return float(found[1])


def question_to_judge(
    doc: MtBenchDoc,
    answers: Sequence[str],
    turn: int,
    prompts: Mapping[str, JudgePrompt],
    *,
    max_tokens: int = MAX_TOKENS,
) -> Turn:
    """What the judge is asked about the answer to a turn, counted from 0; about the second he is shown both.

    Raises:
        DataError: a question that needs a reference has none, or a prompt asks for something else.
    """
    needs_reference = doc.category in WITH_REFERENCE
    if needs_reference and doc.reference is None:
        raise DataError(f"question {doc.id} ({doc.category}) has no reference answer, which its judge needs")
    name = f"single-{'math-' if needs_reference else ''}v1{'-multi-turn' if turn else ''}"
    prompt = prompts[name]
    values = {"question": doc.turns[0], "answer": answers[0]}
    for number, (asked, answered) in enumerate(zip(doc.turns, answers, strict=False), start=1):
        values |= {f"question_{number}": asked, f"answer_{number}": answered}
    for number, reference in enumerate(doc.reference or (), start=1):
        values[f"ref_answer_{number}"] = reference
    messages = (
        {"role": "system", "content": prompt.system},
        {"role": "user", "content": filled(prompt, values)},
    )
    return Turn(messages=messages, temperature=0.0, max_tokens=max_tokens)


def check_judging(docs: Sequence[MtBenchDoc], prompts: Mapping[str, JudgePrompt]) -> None:
    """Does nothing if every answer could be judged by these prompts: asked before anything is answered.

    Raises:
        DataError: a prompt or a reference is missing, or a prompt has a place that nobody knows.
    """
    prompts_digest(prompts)
    for doc in docs:
        for turn in range(len(doc.turns)):
            question_to_judge(doc, doc.turns, turn, prompts)


def filled(prompt: JudgePrompt, values: Mapping[str, str]) -> str:
    """The prompt with its places filled in, once: what stands in an answer is never taken for a place.

    Raises:
        DataError: it has a place that nobody knows.
    """

    def value(place: re.Match[str]) -> str:
        if place[1] not in values:
            raise DataError(f"the judge's prompt {prompt.name} has a place {place[0]}, for which there is nothing")
        return values[place[1]]

    return _PLACE.sub(value, prompt.template)


def prompts_digest(prompts: Mapping[str, JudgePrompt]) -> str:
    """The SHA-256 of what the judge is told, by which a run can be told from another.

    Raises:
        DataError: a prompt is missing.
    """
    for name in PROMPTS:
        if name not in prompts:
            raise DataError(f"judge_prompts.jsonl has no prompt {name!r}")
    told = [[name, prompts[name].system, prompts[name].template] for name in PROMPTS]
    return hashlib.sha256(json.dumps(told, ensure_ascii=False).encode()).hexdigest()
