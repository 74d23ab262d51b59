"""From the lines of a run to its figures. No torch here."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from circius.evals.lines import Outcome
from circius.evals.metrics.interval import Estimate
from circius.evals.questions import Exam
from circius.evals.task import MACRO


def result_of(exam: Exam, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The figures of a task, and what a reader must know of them: JSON values."""
    task, n_all = exam.task, exam.n_all
    counted = [one for one in outcomes if not one.left_out]
    notes = [*task.notes]
    if odd := [path for path, own in exam.data.items() if not own.is_known]:
        notes.append(f"{len(odd)} of its data files are not those that circius knows, such as {odd[0]}")
    left_out = Counter(one.left_out for one in outcomes if one.left_out)
    notes += [f"{n} of {len(outcomes)} items do not count: {why}" for why, n in left_out.items()]
    if cut := sum(one.n_cut > 0 for one in outcomes):
        notes.append(
            f"prompts of {cut} of {len(outcomes)} items did not fit into the context and lost tokens behind BOS"
        )
    estimates = task.estimate(counted) if counted else {}
    primary = task.primary
    if primary not in estimates and primary.removeprefix(MACRO) in estimates:
        primary = primary.removeprefix(MACRO)
        notes.append("too few items of each part for a mean over the parts: the mean over all items stands here")
    if len(outcomes) < n_all:
        notes.append(f"{len(outcomes)} of {n_all} items")
    return {
        "title": task.title,
        "about": task.about,
        "unit": task.unit,
        "n_shots": task.n_shots,
        "n": len(counted),
        "n_items": len(outcomes),
        "n_all": n_all,
        "primary": primary,
        "figures": {name: _described(estimate, task.unit) for name, estimate in estimates.items()},
        "notes": notes,
    }


def _described(estimate: Estimate, unit: str) -> dict[str, Any]:
    """A figure in JSON values; the interval of a share ends where shares end."""
    described = asdict(estimate)
    if unit == "%":
        described |= {"low": max(0.0, estimate.low), "high": min(1.0, estimate.high)}
    return described
