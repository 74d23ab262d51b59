"""Two runs over the same items: by how much they differ, and whether chance alone could do that."""

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from statistics import NormalDist

from circius.base.errors import InvalidInputError
from circius.evals.metrics.interval import LEVEL, N_RESAMPLES, bootstrap_means, checked, cluster_sums, percentile


@dataclass(frozen=True, kw_only=True)
class Paired:
    """How two runs compare on the items that both have.

    Attributes:
        n: how many items.
        first, second: the mean of each run.
        difference: second minus first, with `low` and `high` as its interval.
        n_first_better, n_second_better: on how many items one run has the higher score.
        p_value: how likely a difference at least this large would be if the runs were equally good.
        method: how interval and p-value came about, in words.
    """

    n: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    n_first_better: int
    n_second_better: int
    p_value: float
    method: str
    level: float = LEVEL


def compare(
    first: Mapping[str, float],
    second: Mapping[str, float],
    *,
    clusters: Mapping[str, Hashable] | None = None,
    level: float = LEVEL,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> Paired:
    """Compares two runs item by item; each maps an item's id to its score.

    Scores that are all 0 or 1: McNemar's exact test, and the interval of Agresti and Min (2005), which does not shrink
    to nothing where no item differs. Others, and all with `clusters`: a paired bootstrap of the differences.

    clusters: for each id, what it belongs to (such as its passage); whole clusters are then drawn.

    Raises:
        InvalidInputError: the runs do not have the same items, or have none, or a score is not finite.
    """
    names = _same_items(first, second)
    ours, theirs = checked([first[name] for name in names]), checked([second[name] for name in names])
    differences = [b - a for a, b in zip(ours, theirs, strict=True)]
    n_first, n_second = sum(d < 0 for d in differences), sum(d > 0 for d in differences)
    if clusters is None and all(score in (0, 1) for score in (*ours, *theirs)):
        low, high = _agresti_min(n_first, n_second, len(names), level)
        p_value, method = mcnemar(n_first, n_second), "McNemar exact, Agresti-Min interval"
    else:
        missing = [] if clusters is None else [name for name in names if name not in clusters]
        if missing:
            raise InvalidInputError(f"item {missing[0]!r} has no cluster, and {len(missing) - 1} others have none")
        groups = [clusters[name] for name in names] if clusters is not None else names
        low, high, p_value = _bootstrap(differences, list(groups), level, seed, n_resamples)
        method = f"paired bootstrap of {len(set(groups))} clusters, {n_resamples} resamples"
    return Paired(
        n=len(names),
        first=math.fsum(ours) / len(names),
        second=math.fsum(theirs) / len(names),
        difference=math.fsum(differences) / len(names),
        low=low,
        high=high,
        n_first_better=n_first,
        n_second_better=n_second,
        p_value=p_value,
        method=method,
        level=level,
    )


def mcnemar(n_first_better: int, n_second_better: int) -> float:
    """The two-sided p-value of McNemar's exact test: heads and tails among the items on which the runs differ.

    >>> mcnemar(1, 9), mcnemar(0, 0)
    (0.021484375, 1.0)
    """
    n = n_first_better + n_second_better
    tail, ways = 0, 1
    for k in range(min(n_first_better, n_second_better) + 1):
        tail += ways
        ways = ways * (n - k) // (k + 1)
    return min(1.0, 2 * tail / 2**n) if n < 1000 else min(1.0, math.exp(math.log(2 * tail) - n * math.log(2)))


def _same_items(first: Mapping[str, float], second: Mapping[str, float]) -> list[str]:
    only_first, only_second = first.keys() - second.keys(), second.keys() - first.keys()
    if only_first or only_second:
        example = min(only_first or only_second)
        raise InvalidInputError(
            f"the runs do not have the same items: {len(only_first)} only in the first, {len(only_second)} only in the "
            f"second, for example {example!r}; compare runs of the same --limit and --seed"
        )
    if not first:
        raise InvalidInputError("the runs have no items to compare")
    return sorted(first)


def _agresti_min(n_first: int, n_second: int, n: int, level: float) -> tuple[float, float]:
    """Wald's interval of a paired difference after half an item is added to each of the four cells."""
    b, c, total = n_first + 0.5, n_second + 0.5, n + 2
    middle = (c - b) / total
    half = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(b + c - (c - b) ** 2 / total) / total
    return max(-1.0, middle - half), min(1.0, middle + half)


def _bootstrap(
    differences: list[float], groups: list[Hashable], level: float, seed: int, n_resamples: int
) -> tuple[float, float, float]:
    sums, counts = cluster_sums(differences, groups)
    means = bootstrap_means(sums, counts, seed=seed, n_resamples=n_resamples)
    at_most, at_least = sum(mean <= 0 for mean in means), sum(mean >= 0 for mean in means)
    # One is added above and below, so that a p-value from a finite number of resamples is never 0.
    p_value = min(1.0, 2 * (min(at_most, at_least) + 1) / (n_resamples + 1))
    return percentile(means, (1 - level) / 2), percentile(means, (1 + level) / 2), p_value
