"""A figure and how far it can be trusted: means and proportions with their intervals."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from circius.base.errors import InvalidInputError

LEVEL = 0.95
N_RESAMPLES = 10_000
_CHUNK = 4_000_000  # indices drawn at once, 32 MB


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean and an interval that holds the true one in `level` of all repetitions of the experiment.

    Attributes:
        value: the mean itself.
        low, high: the ends of the interval.
        n: how many values went into it.
        method: how the interval came about, in words.
        level: how often such an interval is right.
    """

    value: float
    low: float
    high: float
    n: int
    method: str
    level: float = LEVEL


def proportion(n_right: int, n: int, *, level: float = LEVEL) -> Estimate:
    """The share of `n` items that are right, with Wilson's score interval, which is good for small n and near 0 and 1.

    >>> share = proportion(40, 50)
    >>> round(share.low, 3), round(share.high, 3)
    (0.67, 0.888)

    Raises:
        InvalidInputError: no items, or not between 0 and n of them right.
    """
    if n < 1 or not 0 <= n_right <= n:
        raise InvalidInputError(f"a share needs 1 or more items and 0 to n of them right, got {n_right} of {n}")
    low, high = _wilson(n_right / n, n, level)
    return Estimate(value=n_right / n, low=low, high=high, n=n, method="Wilson", level=level)


def mean(
    values: Sequence[float],
    *,
    clusters: Sequence[Hashable] | None = None,
    level: float = LEVEL,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> Estimate:
    """The mean of the values with its interval, by the method that suits them.

    Wilson's for values that are all 0 or 1; the normal one otherwise. With `clusters` values belong together (k samples
    of one document, questions about one passage): then whole clusters are drawn again and again (percentile
    bootstrap), because their values are not independent.

    clusters: for each value, which cluster it belongs to.
    seed: of the bootstrap; the same seed gives the same interval.

    Raises:
        InvalidInputError: no values, one that is not finite, clusters that do not go with them, or only one cluster.
    """
    numbers = checked(values)
    if clusters is not None:
        return _clustered(numbers, clusters, level, seed, n_resamples)
    if all(number in (0, 1) for number in numbers):
        return proportion(int(sum(numbers)), len(numbers), level=level)
    middle = math.fsum(numbers) / len(numbers)
    half = _z(level) * standard_error(numbers)
    return Estimate(value=middle, low=middle - half, high=middle + half, n=len(numbers), method="normal", level=level)


def macro_mean(groups: Mapping[str, Sequence[float]], *, level: float = LEVEL) -> Estimate:
    """The mean of the groups' means, every group counting the same; the errors of the groups add up as independent.

    For MMLU's 57 subjects, BBH's 27 tasks, AGIEval's 8 sets. Where all of each group are right, or all wrong, no error
    can be seen; the interval is then Wilson's for as many items as tell as much as these groups do.

    Raises:
        InvalidInputError: no groups, or one of fewer than two values.
    """
    if not groups:
        raise InvalidInputError("a mean of groups needs at least one group, got none")
    means, variances, shares = [], [], []
    for name, values in groups.items():
        numbers = checked(values)
        if len(numbers) < 2:
            raise InvalidInputError(f"group {name!r} has one value: at least two tell how much they vary")
        means.append(math.fsum(numbers) / len(numbers))
        variances.append(standard_error(numbers) ** 2)
        shares.append(1 / len(numbers))
    middle = math.fsum(means) / len(means)
    half = _z(level) * math.sqrt(math.fsum(variances)) / len(means)
    n = sum(len(values) for values in groups.values())
    method = f"normal, over {len(groups)} groups"
    if not half and all(value in (0, 1) for values in groups.values() for value in values):
        low, high = _wilson(middle, len(groups) ** 2 / math.fsum(shares), level)
        method = f"Wilson, over {len(groups)} groups"
        return Estimate(value=middle, low=low, high=high, n=n, method=method, level=level)
    return Estimate(value=middle, low=middle - half, high=middle + half, n=n, method=method, level=level)


def standard_error(values: Sequence[float]) -> float:
    """Of the mean of independent values; 0 for a single one."""
    n = len(values)
    if n < 2:
        return 0.0
    middle = math.fsum(values) / n
    return math.sqrt(math.fsum((value - middle) ** 2 for value in values) / (n - 1) / n)


def bootstrap_means(sums: Sequence[float], counts: Sequence[int], *, seed: int, n_resamples: int) -> list[float]:
    """Sorted means of clusters drawn with replacement: the sum of the drawn sums over the sum of the drawn counts."""
    import numpy as np

    generator = np.random.default_rng(seed)
    of_sums, of_counts = np.asarray(sums, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    n = len(of_sums)
    means: list[float] = []
    while len(means) < n_resamples:
        n_rows = min(n_resamples - len(means), max(1, _CHUNK // n))
        drawn = generator.integers(0, n, size=(n_rows, n))
        means.extend((of_sums[drawn].sum(axis=1) / of_counts[drawn].sum(axis=1)).tolist())
    return sorted(means)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which this share of the sorted values lies, interpolated."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def checked(values: Sequence[float]) -> list[float]:
    """The values as floats.

    Raises:
        InvalidInputError: there are none, or one is not finite.
    """
    numbers = [float(value) for value in values]
    if not numbers:
        raise InvalidInputError("a mean needs at least one value, got none")
    for place, number in enumerate(numbers):
        if not math.isfinite(number):
            raise InvalidInputError(f"value {place} is {number}: a mean needs finite numbers")
    return numbers


def cluster_sums(values: Sequence[float], clusters: Sequence[Hashable]) -> tuple[list[float], list[int]]:
    """The sum and the number of the values of each cluster, in the order in which clusters first appear.

    Raises:
        InvalidInputError: not as many clusters as values, or only one cluster.
    """
    if len(clusters) != len(values):
        raise InvalidInputError(f"{len(values)} values need {len(values)} clusters, got {len(clusters)}")
    gathered: dict[Hashable, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        gathered.setdefault(cluster, []).append(value)
    if len(gathered) < 2:
        raise InvalidInputError("all values belong to one cluster: at least two tell how much clusters vary")
    return [math.fsum(members) for members in gathered.values()], [len(members) for members in gathered.values()]


def _clustered(
    values: Sequence[float], clusters: Sequence[Hashable], level: float, seed: int, n_resamples: int
) -> Estimate:
    sums, counts = cluster_sums(values, clusters)
    means = bootstrap_means(sums, counts, seed=seed, n_resamples=n_resamples)
    return Estimate(
        value=math.fsum(values) / len(values),
        low=percentile(means, (1 - level) / 2),
        high=percentile(means, (1 + level) / 2),
        n=len(values),
        method=f"bootstrap of {len(sums)} clusters, {n_resamples} resamples",
        level=level,
    )


def _wilson(share: float, n: float, level: float) -> tuple[float, float]:
    z = _z(level)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # Where all or none are right, one end is 1 or 0 exactly, and rounding must not put it elsewhere.
    return 0.0 if share == 0 else max(0.0, middle - half), 1.0 if share == 1 else min(1.0, middle + half)


def _z(level: float) -> float:
    if not 0 < level < 1:
        raise InvalidInputError(f"level must be between 0 and 1, such as 0.95, got {level}")
    return NormalDist().inv_cdf((1 + level) / 2)
