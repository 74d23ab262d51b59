"""Two runs over the same items, item by item. No torch here."""

from collections.abc import Sequence

from circius.base.errors import InvalidInputError
from circius.evals.metrics.paired import Paired, compare
from circius.evals.record import RunFolder
from circius.evals.task import MACRO


def compared(
    first: RunFolder, second: RunFolder, *, tasks: Sequence[str] = (), metric: str | None = None
) -> dict[str, tuple[str, str, Paired]]:
    """For each task that both runs have, or those named: the metric, its unit, and how the runs compare.

    metric: instead of each task's primary one.

    Raises:
        InvalidInputError: no run, no task in common, another item in one of them, or no such metric.
    """
    here, there = first.read_results()["tasks"], second.read_results()["tasks"]
    common = [name for name in here if name in there]
    for name in tasks:
        if name not in common:
            raise InvalidInputError(f"{name} is not in both runs: they have {', '.join(common) or 'nothing'} in common")
    chosen = list(tasks) or [name for name in common if here[name]["n"] > 1]  # a single item tells nothing
    if not chosen:
        raise InvalidInputError(
            f"the runs have no task of two items or more in common: {first.path} has {', '.join(here)}, "
            f"{second.path} {', '.join(there)}"
        )
    return {name: _one(name, here[name], first, second, metric) for name in chosen}


def _one(
    name: str, result: dict[str, object], first: RunFolder, second: RunFolder, metric: str | None
) -> tuple[str, str, Paired]:
    wanted, unit = (metric or str(result["primary"])).removeprefix(MACRO), str(result["unit"])
    if metric is None and unit != "%":
        wanted, unit = "nll", "nats"  # perplexities are made of sums over the whole text
    runs = [[one for one in folder.lines(name).outcomes() if not one.left_out] for folder in (first, second)]
    values = [{one.id: one.values[wanted] for one in run if wanted in one.values} for run in runs]
    for folder, own, run in zip((first, second), values, runs, strict=True):
        if not own:
            known = sorted({key for one in run for key in one.values})
            raise InvalidInputError(f"{folder.path}: {name} has no {wanted} by item; it has {', '.join(known)}")
    clusters = {one.id: one.cluster for one in runs[0] if wanted in one.values and one.cluster}
    has_clusters = len(clusters) == len(values[0]) and 1 < len(set(clusters.values())) < len(clusters)
    return wanted, unit, compare(values[0], values[1], clusters=clusters if has_clusters else None)
