"""What a benchmark is: where its items are, what is asked about each, and what an answer is worth. No torch here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from circius.evals.item import Answer, Ask, Item
from circius.evals.metrics.interval import Estimate, macro_mean, mean
from circius.evals.model import Tokens

MACRO = "macro_"
"""Before the name of a metric: its mean over the means of the parts."""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where the items of a run come from.

    Attributes:
        home: the folder with the data sets; None for circius's own.
        text: a text of the user's, for perplexity.
        tokens: how the model makes tokens, for what is measured by the token.
    """

    home: Path | None = None
    text: Path | None = None
    tokens: Tokens | None = None


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What an item's answers are worth.

    Attributes:
        values: by metric; 1 and 0 for right and wrong.
        said: what was taken for the model's answer, by metric or by sample.
        gold: what is right.
        left_out: why it does not count, or empty; then `values` are empty too.
    """

    values: Mapping[str, float]
    said: Any = None
    gold: Any = None
    left_out: str = ""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The values of an item, and where it belongs."""

    id: str
    values: Mapping[str, float]
    part: str = ""
    cluster: str = ""


def no_shots(sources: Sources) -> None:
    """For what is asked without examples, or with the same ones for everybody."""


def means(scored: Sequence[Scored]) -> dict[str, Estimate]:
    """The mean of every metric, and of those over the parts, where each part has two items or more."""
    estimates = {}
    for name in dict.fromkeys(name for one in scored for name in one.values):
        own = [one for one in scored if name in one.values]
        values = [one.values[name] for one in own]
        groups = [one.cluster or one.id for one in own]
        has_clusters = 1 < len(set(groups)) < len(groups)
        estimates[name] = mean(values, clusters=groups if has_clusters else None)
        parts: dict[str, list[float]] = {}
        for one in own:
            parts.setdefault(one.part, []).append(one.values[name])
        if len(parts) > 1 and min(map(len, parts.values())) > 1:
            estimates[f"{MACRO}{name}"] = macro_mean(parts)
    return estimates


@dataclass(frozen=True, kw_only=True)
class Task:
    """A benchmark by one protocol.

    Attributes:
        name: as on the command line; the same as in `metrics.published`.
        title: for people.
        about: the protocol in a sentence.
        items: all of them, always in the same order.
        shots: what the prompts of all items share: examples, pools, texts.
        asks: what is asked about an item.
        judge: what the answers to that are worth.
        primary: the metric that stands beside published figures.
        estimate: from the values of the items to figures.
        unit: "%" for shares, which are shown times a hundred; else what the numbers are.
        is_balanced: whether a subset takes as many items of each part; else every item is as likely.
        runs_code: whether judging runs programs that the model wrote.
        data: the data sets that it reads, by their names in the catalogue.
        version: of the protocol; counted up with every change that moves a number.
        notes: what a reader of the figure must know.
    """

    name: str
    title: str
    about: str
    items: Callable[[Sources], Sequence[Item]]
    asks: Callable[[Item, Any], tuple[Ask, ...]]
    judge: Callable[[Item, Sequence[Answer]], Judged]
    primary: str
    n_shots: int = 0
    shots: Callable[[Sources], Any] = no_shots
    estimate: Callable[[Sequence[Scored]], dict[str, Estimate]] = means
    unit: str = "%"
    is_balanced: bool = False
    runs_code: bool = False
    data: tuple[str, ...] = ()
    version: int = 1
    notes: tuple[str, ...] = field(default=())
