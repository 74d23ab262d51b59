"""Running benchmarks: a line an item, and where a run was killed it goes on."""

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from circius.engine.machine import n_cores, processor_name
from circius.evals.lines import ResultLines, line_of
from circius.evals.model import Model, answer_all
from circius.evals.questions import Exam, Question
from circius.evals.record import RunFolder, check_continues
from circius.evals.results import result_of

OnItems = Callable[[str, float, int], object]
"""Called with a task, how many of its items are done, a part of one counting too, and how many there are."""
OnNote = Callable[[str], object]


@dataclass(frozen=True, kw_only=True)
class Listeners:
    """Who is told how a run goes."""

    on_items: OnItems = lambda task, done, n: None
    on_note: OnNote = lambda sentence: None


def run(
    model: Model,
    exams: Sequence[Exam],
    folder: RunFolder,
    *,
    described: Mapping[str, Any] | None = None,
    listeners: Listeners | None = None,
) -> dict[str, Any]:
    """The results of all exams, as they stand in `results.json` as well; what the folder holds already is not asked
    again, and what is asked again because a kill took it gets the same answers.

    described: `model.describe()`, if it is known already.

    Raises:
        InvalidInputError: the folder holds a run of another model, or with other questions.
        CirciusError: another process writes there, or the model fails.
    """
    listeners = listeners or Listeners()
    with folder.lock():
        record = {
            "model": dict(described if described is not None else model.describe()),
            "tasks": {exam.task.name: _described(exam) for exam in exams},
        }
        sessions: list[dict[str, Any]] = []
        if folder.has_record():
            old = folder.read_record()
            check_continues(old, record)
            record["tasks"] = {**old["tasks"], **record["tasks"]}
            sessions = _continued(old["sessions"], listeners)
        with _session(folder, record, sessions) as session:
            for exam in exams:
                for n_new in _run_exam(model, exam, folder.lines(exam.task.name), listeners):
                    session["n_answered"] += n_new
        results = {exam.task.name: result_of(exam, folder.lines(exam.task.name).outcomes()) for exam in exams}
        others = folder.read_results()["tasks"] if (folder.path / "results.json").is_file() else {}
        whole = {"model": record["model"], "sessions": sessions, "tasks": {**others, **results}}
        folder.write_results(whole)
        return whole


def _run_exam(model: Model, exam: Exam, lines: ResultLines, listeners: Listeners) -> Iterator[int]:
    """Answers what is not answered yet, group by group; yields how many items that were."""
    lines.mend()
    known = {one.id for one in lines.outcomes()}
    n, name = len(exam.items), exam.task.name
    n_done = 0
    for group in exam.groups(model.n_at_once):
        new = {question.item.id for question in group} - known
        if new:
            heard = _counting(listeners, name, n_done, len(group), n)
            lines.append(line for line in _answered(model, exam, group, heard) if line["id"] in new)
            yield len(new)
        n_done += len(group)
        listeners.on_items(name, n_done, n)


def _counting(listeners: Listeners, name: str, n_done: int, n_group: int, n: int) -> Callable[[float], object]:
    return lambda share: listeners.on_items(name, n_done + share * n_group, n)


def _answered(
    model: Model, exam: Exam, group: Sequence[Question], on_answered: Callable[[float], object]
) -> list[dict[str, Any]]:
    """The lines of a group, which is always answered as a whole: see `Exam.groups`."""
    asks = [ask for question in group for ask in question.asks]
    answers = iter(answer_all(model, asks, on_answered))
    lines = []
    for question in group:
        own = [next(answers) for _ in question.asks]
        lines.append(line_of(question, own, exam.task.judge(question.item, own)))
    return lines


def _described(exam: Exam) -> dict[str, Any]:
    task = exam.task
    return {
        "version": task.version,
        "about": task.about,
        "n_items": len(exam.items),
        "n_all": exam.n_all,
        "n_shots": task.n_shots,
        "seed": exam.seed,
        "questions_sha256": exam.digest(),
        "data": {path: own.sha256 for path, own in exam.data.items()},
    }


@contextmanager
def _session(folder: RunFolder, record: dict[str, Any], sessions: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Notes who computes before anything is computed, and how long it took when it ends, whatever ends it."""
    own = {**_machine(), "begun": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "seconds": None, "n_answered": 0}
    sessions.append(own)
    folder.write_record({**record, "sessions": sessions})
    begun = time.perf_counter()
    try:
        yield own
    finally:
        own["seconds"] = round(time.perf_counter() - begun, 3)
        folder.write_record({**record, "sessions": sessions})


def _machine() -> dict[str, Any]:
    """What can move the last digits of a number."""
    import torch

    return {
        "circius": version("circius"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": processor_name(),
        "cores": n_cores(),
        "threads": torch.get_num_threads(),
    }


def _continued(sessions: list[dict[str, Any]], listeners: Listeners) -> list[dict[str, Any]]:
    now = _machine()
    for name in ("torch", "processor", "threads"):
        before = sessions[-1].get(name) if sessions else None
        if before is not None and before != now[name]:
            listeners.on_note(
                f"this run goes on with {name} {now[name]}, and began with {before}: last digits may differ"
            )
    return sessions
