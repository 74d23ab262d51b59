"""A whole run: answers into one journal, judgements into another, and the scores at the end.

Answers can be judged again by another judge; a run that was stopped, or in which a server failed, goes on where it was.
What is greedy is asked once and stands for every seed, and equal answers are judged once: the judge is greedy too.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from circius.base.errors import CirciusError, InvalidInputError
from circius.base.journal import Journal
from circius.evals.chats import Chats, Outcome, Said
from circius.evals.data.sets.mt_bench import JudgePrompt, MtBenchDoc
from circius.evals.mt_bench import judge as judging
from circius.evals.mt_bench.answer import MAX_TOKENS, TEMPERATURES, Answer, check_questions, next_turn
from circius.evals.mt_bench.judge import prompts_digest, question_to_judge, rating_in
from circius.evals.mt_bench.score import Rating

OnDone = Callable[[int, int], object]
_ROUNDS_KEPT = 2
"""Requests handed over together, for each that is answered at once: no server idles, and a kill loses little."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """seeds: one iteration each; at temperature 0 they differ in nothing. max_tokens: of each answer."""

    seeds: Sequence[int] = (0, 1, 2)
    max_tokens: int = MAX_TOKENS


def unheard(done: int, total: int) -> None:
    """For those who do not watch."""


def spread(docs: Sequence[MtBenchDoc], n: int | None) -> list[MtBenchDoc]:
    """The first `n` questions, taken from the categories in turn; all if it is None."""
    if n is None:
        return list(docs)
    by_category: dict[str, list[MtBenchDoc]] = {}
    for doc in docs:
        by_category.setdefault(doc.category, []).append(doc)
    rounds = zip_longest(*by_category.values())
    return [doc for each in rounds for doc in each if doc is not None][:n]


def answer_questions(
    docs: Sequence[MtBenchDoc],
    model: Chats,
    folder: Path,
    settings: Settings,
    *,
    on_done: OnDone = unheard,
) -> list[Answer]:
    """The model's answers to every question at every seed, those that are in the folder already included.

    Raises:
        InvalidInputError: the folder has answers of another model, or to other questions.
        CirciusError: some questions could not be answered; what could is kept, and a second run asks for the rest.
    """
    check_questions(docs)
    if not settings.seeds or len(set(settings.seeds)) < len(settings.seeds):
        raise InvalidInputError(f"seeds must be one or more different numbers, got {list(settings.seeds)}")
    header = {
        "model": dict(model.describe()),
        "questions": _digest([[doc.id, doc.category, *doc.turns] for doc in docs]),
        "max_tokens": settings.max_tokens,
    }
    with Journal(folder / "answers.jsonl", {"circius_mt_bench_answers": header}) as journal:
        answers = {(row["question"], row["seed"]): Answer.from_row(row) for row in journal.rows}
        wanted = list(
            dict.fromkeys((place, _own_seed(doc, seed)) for seed in settings.seeds for place, doc in enumerate(docs))
        )
        waiting = [(docs[place], seed) for place, seed in wanted if (docs[place].id, seed) not in answers]
        failures: list[CirciusError] = []
        on_done(len(wanted) - len(waiting), len(wanted))
        for some in _some(waiting, model):
            n_before = len(failures)
            for own in _answered(some, model, settings, failures):
                journal.append({"question": own.question, "seed": own.seed, "turns": own.turns, "is_cut": own.is_cut})
                answers[own.question, own.seed] = own
            on_done(sum((docs[place].id, seed) in answers for place, seed in wanted), len(wanted))
            _stop_if_hopeless(some, failures[n_before:])
        _complain("questions were not answered", failures)
        return [replace(answers[doc.id, _own_seed(doc, seed)], seed=seed) for seed in settings.seeds for doc in docs]


def judge_answers(
    docs: Sequence[MtBenchDoc],
    answers: Sequence[Answer],
    judge: Chats,
    prompts: Mapping[str, JudgePrompt],
    folder: Path,
    *,
    max_tokens: int = judging.MAX_TOKENS,
    on_done: OnDone = unheard,
) -> list[Rating]:
    """A rating of every answer, turn by turn; None where what the judge says has none.

    Raises:
        InvalidInputError: the folder has judgements of other answers, or by other prompts.
        CirciusError: some answers could not be judged; what could is kept, and a second run asks for the rest.
    """
    by_id = {doc.id: doc for doc in docs}
    header = {
        "judge": dict(judge.describe()),
        "prompts": prompts_digest(prompts),
        "references": _digest([[doc.id, *(doc.reference or ())] for doc in docs]),
        "max_tokens": max_tokens,
    }
    name = _digest(header["judge"])[:12]
    with Journal(folder / f"judgements-{name}.jsonl", {"circius_mt_bench_judgements": header}) as journal:
        known = {(row["answer"], row["turn"]): row for row in journal.rows}
        every = [(answer, turn) for answer in answers for turn in range(len(answer.turns))]
        wanted = {(_digest_of(answer), turn): (answer, turn) for answer, turn in every}
        waiting = [own for key, own in wanted.items() if key not in known]
        failures: list[CirciusError] = []
        on_done(len(wanted) - len(waiting), len(wanted))
        for some in _some(waiting, judge):
            n_before = len(failures)
            turns = [
                question_to_judge(by_id[own.question], own.turns, turn, prompts, max_tokens=max_tokens)
                for own, turn in some
            ]
            for place, outcome in judge.say(turns):
                if isinstance(outcome, CirciusError):
                    failures.append(outcome)
                    continue
                own, turn = some[place]
                row = {"answer": _digest_of(own), "question": own.question, "turn": turn}
                journal.append({**row, "rating": rating_in(outcome.text), "judgement": outcome.text})
                known[_digest_of(own), turn] = journal.rows[-1]
            on_done(sum(key in known for key in wanted), len(wanted))
            _stop_if_hopeless(some, failures[n_before:])
        _complain("answers were not judged", failures)
        return [
            Rating(
                question=own.question,
                category=by_id[own.question].category,
                seed=own.seed,
                turn=turn,
                rating=known[_digest_of(own), turn]["rating"],
            )
            for own, turn in every
        ]


def _own_seed(doc: MtBenchDoc, seed: int) -> int:
    """The seed under which an answer is kept: greedy ones have none of their own."""
    return seed if TEMPERATURES[doc.category] > 0 else 0


def _answered(
    some: Sequence[tuple[MtBenchDoc, int]], model: Chats, settings: Settings, failures: list[CirciusError]
) -> Iterator[Answer]:
    """The answers to some questions, all first turns and then all second ones."""
    so_far = {place: Answer(question=doc.id, seed=seed, turns=(), is_cut=()) for place, (doc, seed) in enumerate(some)}
    for _ in range(max(len(doc.turns) for doc, _ in some)):
        places = sorted(so_far)
        turns = [
            next_turn(some[place][0], so_far[place].turns, seed=some[place][1], max_tokens=settings.max_tokens)
            for place in places
        ]
        for at, outcome in model.say(turns):
            _take(so_far, places[at], outcome, failures)
    yield from so_far.values()


def _take(so_far: dict[int, Answer], place: int, outcome: Outcome, failures: list[CirciusError]) -> None:
    if not isinstance(outcome, Said):
        failures.append(outcome)
        del so_far[place]
        return
    own = so_far[place]
    so_far[place] = replace(
        own, turns=(*own.turns, outcome.text), is_cut=(*own.is_cut, outcome.finish_reason == "length")
    )


def _some(waiting: Sequence[Any], chats: Chats) -> Iterator[Sequence[Any]]:
    step = chats.at_once * _ROUNDS_KEPT
    yield from (waiting[begin : begin + step] for begin in range(0, len(waiting), step))


def _stop_if_hopeless(some: Sequence[object], failures: Sequence[CirciusError]) -> None:
    """Raises the last failure if nothing of the latest lot succeeded: the next would hardly fare better."""
    if failures and len(failures) >= len(some):
        raise failures[-1]


def _complain(what: str, failures: Sequence[CirciusError]) -> None:
    if failures:
        raise CirciusError(
            f"{len(failures)} {what}, the first because: {failures[0]}; all others are kept: run it again for the rest"
        )


def _digest_of(answer: Answer) -> str:
    return _digest([answer.question, *answer.turns])


def _digest(found: Any) -> str:
    return hashlib.sha256(json.dumps(found, ensure_ascii=False, sort_keys=True).encode()).hexdigest()
