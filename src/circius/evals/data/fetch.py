"""Sets into the store: part by part, from the first supplier that has one; what is there already stays."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from circius.base.errors import DataError, DownloadError
from circius.evals.data import store
from circius.evals.data.catalogue import Part, choose, find_part

DOWNLOADS = ".downloads"
"""The folder in the store for what is only needed while sets are fetched."""


class Supplier(Protocol):
    """Where parts come from."""

    @property
    def name(self) -> str:
        """How it is called in messages."""
        ...

    def supply(self, part: Part) -> bytes | None:
        """The content of a part, for .gz what is inside; None if it does not have the part."""
        ...


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one part.

    Attributes:
        path: the part.
        status: "here" before already, "fetched" now, or "missing".
        supplier: who brought it, empty where nobody did now.
        why: for a missing part, what each supplier said.
    """

    path: str
    status: Literal["here", "fetched", "missing"]
    supplier: str = ""
    why: str = ""


def fetch(
    names: Sequence[str] | None,
    suppliers: Sequence[Supplier],
    *,
    home: Path | None = None,
    accept_changed: bool = False,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> list[Outcome]:
    """Brings the named sets (all, if none is named) into the store and tells what became of each part.

    A part that is there and passes its check is left alone, so an interrupted call goes on where it stopped. One
    that cannot be had does not keep the others from being fetched.

    accept_changed: take content that circius does not know; it then replaces what is in the store.
    on_progress: called with the parts that are done, all there are, and the name of the next.

    Raises:
        InvalidInputError: a name is not known.
        StorageError: the store cannot be written.
    """
    folder = home or store.eval_home()
    parts = [part for entry in choose(names) for part in entry.parts]
    outcomes = []
    for n_done, part in enumerate(parts):
        if on_progress is not None:
            on_progress(n_done, len(parts), part.set_name)
        outcome = _bring(part, suppliers, folder, accept_changed=accept_changed)
        if outcome.status != "missing" or not part.is_optional or outcome.why:
            outcomes.append(outcome)
    if not any(outcome.status == "missing" and _is_downloaded(find_part(outcome.path)) for outcome in outcomes):
        shutil.rmtree(folder / DOWNLOADS, ignore_errors=True)
    return outcomes


def _bring(part: Part, suppliers: Sequence[Supplier], home: Path, *, accept_changed: bool) -> Outcome:
    is_here = store.is_whole(part, home)
    if is_here and not accept_changed:
        return Outcome(path=part.path, status="here")
    complaints = []
    for supplier in suppliers:
        try:
            content = supplier.supply(part)
            if content is not None:
                store.write(part, content, home, accept_changed=accept_changed)
                return Outcome(path=part.path, status="fetched", supplier=supplier.name)
        except (DataError, DownloadError) as error:
            complaints.append(f"{supplier.name}: {error}")
    if is_here and not complaints:
        return Outcome(path=part.path, status="here")
    return Outcome(path=part.path, status="missing", why="; ".join(complaints))


def _is_downloaded(part: Part) -> bool:
    """Whether a part is taken out of something larger, which is kept until it is no longer needed."""
    return part.wheel is not None or part.hub is not None
