"""Our figures beside published ones: which belongs beside which, and the paper's groups of tasks. No torch here."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from circius.evals.metrics.equivalent import OWN_SIZE_B, Equivalent, curves, equivalent_size
from circius.evals.metrics.published import Figure, figures
from circius.evals.tasks import COMMONSENSE, KNOWLEDGE, MATH, READING

MISTRAL = "mistral-7b-v0.1"
MODELS: Mapping[str, str] = {
    MISTRAL: "Mistral 7B",
    "llama-2-7b": "Llama 2 7B",
    "llama-2-13b": "Llama 2 13B",
    "code-llama-7b": "Code-Llama 7B",
}
"""Whose figures stand beside ours, and how they are called."""

_SOURCES = ("paper-table-2", "model-card", "paper-figure-4", "llama-cpp-pr-3362", "d-matrix-card")
"""Where figures are taken from, the first that has one; others follow protocols that are not the paper's."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "mmlu": ("mmlu",),
    "commonsense": COMMONSENSE,
    "knowledge": KNOWLEDGE,
    "reading": READING,
    "maths": MATH,
    "code": ("humaneval", "mbpp"),
    "bbh": ("bbh",),
    "agieval": ("agieval",),
}
"""The groups of the paper's Figure 4, by the names of the curves."""
TITLES: Mapping[str, str] = {
    "mmlu": "MMLU",
    "commonsense": "Reasoning",
    "knowledge": "Knowledge",
    "reading": "Comprehension",
    "maths": "Math",
    "code": "Code",
    "bbh": "BBH",
    "agieval": "AGIEval",
}
WHOLE_CURVE = "llama-2"
CURVE = "llama-2-released"
"""The sizes that the paper's Figure 5 has; it lacks what does not grow with them."""


@dataclass(frozen=True, kw_only=True)
class GroupFigure:
    """The mean over a group's tasks, in per cent.

    Attributes:
        missing: tasks of the group that were not run; the mean is over the others.
        equivalent: the Llama 2 of the same score, where the whole group was run; it can be undefined.
    """

    name: str
    value: float
    low: float
    high: float
    missing: tuple[str, ...]
    equivalent: Equivalent | None


def published(task: str, primary: str, model: str) -> Figure | None:
    """The figure of a model that belongs beside a metric of ours; None where nobody has published one."""
    name = primary.removeprefix("macro_")
    benchmark = task.removesuffix("_chunks")
    for source in _SOURCES:
        for figure in figures(model=model, benchmark=benchmark, source=source):
            if figure.setting.startswith("0-shot") and task in KNOWLEDGE:
                continue  # the card has those too; ours are 5-shot
            if figure.metric in ("score", name, name.replace("_", " ")):
                return figure
    return None


def standing(primary: Mapping[str, Any], figure: Figure | None, unit: str) -> str:
    """Where ours stands to a published figure: "inside" our interval, "above" or "below" it; empty without a figure."""
    if figure is None:
        return ""
    scale = 100 if unit == "%" else 1
    if primary["low"] * scale > figure.value:
        return "above"
    return "below" if primary["high"] * scale < figure.value else "inside"


def group_figures(tasks: Mapping[str, Any], *, own_size_b: float = OWN_SIZE_B) -> list[GroupFigure]:
    """The groups of which at least one task was run. Their interval treats the tasks as independent."""
    points = {**curves()[WHOLE_CURVE].points, **curves()[CURVE].points}
    found = []
    for name, members in GROUPS.items():
        own = [_primary(tasks[task]) for task in members if task in tasks and _primary(tasks[task]) is not None]
        if not own:
            continue
        values = [100 * one["value"] for one in own if one]
        halves = [50 * (one["high"] - one["low"]) for one in own if one]
        value = math.fsum(values) / len(values)
        half = math.sqrt(math.fsum(half * half for half in halves)) / len(values)
        missing = tuple(task for task in members if task not in tasks)
        equivalent = None if missing else equivalent_size(value, points[name], own_size_b=own_size_b)
        found.append(
            GroupFigure(
                name=name, value=value, low=value - half, high=value + half, missing=missing, equivalent=equivalent
            )
        )
    return found


def _primary(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    figure: Mapping[str, Any] | None = result["figures"].get(result["primary"])
    return figure
