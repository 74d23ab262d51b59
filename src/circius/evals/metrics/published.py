"""What others reported, each figure with its source and with how far we could check it."""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from circius.base.errors import InvalidInputError

MARKS = {
    "read": "read in the named source, not run by us",
    "counted": "counted in the source's own files",
    "unverified": "from memory or at second hand: check before quoting",
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a figure is from: a key, a title, and an address where there is one."""

    key: str
    title: str
    address: str


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number that somebody published.

    Attributes:
        model: whose score it is, such as "mistral-7b-v0.1".
        benchmark: our name of the task.
        metric: what was counted: "score" where the source does not say.
        setting: shots and the like, as the source has it; empty where it does not say.
        value: the number, in `unit`.
        unit: "%", or what else it counts.
        plus_minus: the deviation that was published with it.
        is_approximate: whether it was read off a drawing or rounded by its authors.
        source, mark: where it is from, and how that was checked: a key of `MARKS`.
    """

    model: str
    benchmark: str
    metric: str
    setting: str
    value: float
    unit: str
    plus_minus: float | None
    is_approximate: bool
    source: Source
    mark: str


def figures(*, model: str | None = None, benchmark: str | None = None, source: str | None = None) -> tuple[Figure, ...]:
    """The figures of a model, a benchmark or a source; all where nothing is asked for, none where nothing is known.

    Raises:
        InvalidInputError: a source that is not known.
    """
    everything = _stored()
    if source is not None and source not in {figure.source.key for figure in everything}:
        known = ", ".join(sorted({figure.source.key for figure in everything}))
        raise InvalidInputError(f"no figures from {source!r}: use {known}")
    return tuple(
        figure
        for figure in everything
        if (model is None or figure.model == model)
        and (benchmark is None or figure.benchmark == benchmark)
        and (source is None or figure.source.key == source)
    )


@cache
def _stored() -> tuple[Figure, ...]:
    stored = json.loads(files(__package__).joinpath("published.json").read_text(encoding="utf-8"))
    sources = {key: Source(key=key, **fields) for key, fields in stored["sources"].items()}
    return tuple(_figure(entry, sources) for entry in stored["figures"])


def _figure(entry: dict[str, Any], sources: dict[str, Source]) -> Figure:
    return Figure(
        model=entry["model"],
        benchmark=entry["benchmark"],
        metric=entry.get("metric", "score"),
        setting=entry.get("setting", ""),
        value=float(entry["value"]),
        unit=entry.get("unit", "%"),
        plus_minus=entry.get("plus_minus"),
        is_approximate=entry.get("is_approximate", False),
        source=sources[entry["source"]],
        mark=entry["mark"],
    )
