"""Which sets there are, of which files each consists, what these must contain, and where they can be had."""

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from circius.base.errors import InvalidInputError


@dataclass(frozen=True, kw_only=True)
class InWheel:
    """Where a part lies in the wheel: its members, in order, and what kind of file they are."""

    members: tuple[str, ...]
    kind: str


@dataclass(frozen=True, kw_only=True)
class OnHub:
    """Where a part lies on the Hub: the parquet conversion of these configurations' split, in order."""

    repository: str
    configs: tuple[str, ...]
    split: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """One file of a set.

    Attributes:
        path: inside the store, such as "hellaswag/validation.jsonl.gz".
        sha256: of its content, for .gz of what is inside; None for a file that only users can bring.
        n_items: how many items it holds, 0 where that is not counted.
        rows: the name of what turns a source's rows into ours, in `rows.py`; empty for files taken as they are.
        addresses: where the very same bytes can be downloaded.
        is_optional: whether a set is whole without it.
    """

    path: str
    sha256: str | None
    n_items: int
    rows: str
    wheel: InWheel | None
    hub: OnHub | None
    addresses: tuple[str, ...]
    is_optional: bool

    @property
    def set_name(self) -> str:
        """The set that the part belongs to."""
        return self.path.partition("/")[0]


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One benchmark's files, with the licence of the data and a word of caution where one is due."""

    name: str
    about: str
    licence: str
    caution: str
    parts: tuple[Part, ...]


@cache
def catalogue() -> tuple[DataSet, ...]:
    """Every set that circius knows, in the order of the paper's protocol."""
    stored = json.loads(files(__package__).joinpath("catalogue.json").read_text(encoding="utf-8"))
    return tuple(
        DataSet(
            name=entry["name"],
            about=entry["about"],
            licence=entry["licence"],
            caution=entry.get("caution", ""),
            parts=tuple(map(_part, entry["parts"])),
        )
        for entry in stored["sets"]
    )


def choose(names: Sequence[str] | None) -> tuple[DataSet, ...]:
    """The sets of these names; all of them for None or no name.

    Raises:
        InvalidInputError: a name is not known.
    """
    known = {entry.name: entry for entry in catalogue()}
    for name in names or ():
        if name not in known:
            close = difflib.get_close_matches(name.lower(), known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise InvalidInputError(f"no data set {name!r}: use {', '.join(known)}{hint}")
    return tuple(known[name] for name in dict.fromkeys(names)) if names else catalogue()


def find_part(path: str) -> Part:
    """The part of this path; it must be in the catalogue."""
    return _parts()[path]


@cache
def _parts() -> dict[str, Part]:
    return {part.path: part for entry in catalogue() for part in entry.parts}


def _part(entry: dict[str, Any]) -> Part:
    wheel, hub = entry.get("wheel"), entry.get("hub")
    return Part(
        path=entry["path"],
        sha256=entry["sha256"],
        n_items=entry["n_items"],
        rows=entry.get("rows", ""),
        wheel=wheel and InWheel(members=tuple(wheel["members"]), kind=wheel["kind"]),
        hub=hub and OnHub(repository=hub["repository"], configs=tuple(hub["configs"]), split=hub["split"]),
        addresses=tuple(entry.get("addresses", ())),
        is_optional=entry.get("is_optional", False),
    )
