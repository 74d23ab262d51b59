"""Intervals: against published values, and against the experiment that they speak of."""

import math
import random

import pytest

from circius.base.errors import InvalidInputError
from circius.evals.metrics.interval import macro_mean, mean, percentile, proportion


@pytest.mark.parametrize(
    ("n_right", "n", "low", "high"),
    [
        # Newcombe (1998), table I: the score interval without continuity correction.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_as_published(n_right: int, n: int, low: float, high: float) -> None:
    estimate = proportion(n_right, n)
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=5e-5)
    mirrored = proportion(n - n_right, n)
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((low, high), abs=5e-5)


def test_the_ends_are_exact() -> None:
    assert proportion(0, 7).low == 0.0
    assert proportion(7, 7).high == 1.0
    assert proportion(7, 7).low < 1.0


def test_method_by_kind_of_values() -> None:
    assert mean([0, 1, True, False]).method == "Wilson"
    estimate = mean([0.5, 1.5, 2.5, 3.5])
    assert estimate.method == "normal"
    assert estimate.value == 2.0
    assert estimate.high - 2.0 == pytest.approx(1.959964 * math.sqrt(5 / 3 / 4))


def test_clusters_widen_the_interval() -> None:
    """Eight copies of the same 50 values are no more than 50 values."""
    chance = random.Random(1)
    once = [chance.random() for _ in range(50)]
    copies = [value for value in once for _ in range(8)]
    clusters = [place for place in range(50) for _ in range(8)]
    alone, apart, together = mean(once), mean(copies), mean(copies, clusters=clusters, seed=3)
    assert together.value == pytest.approx(alone.value)
    assert apart.high - apart.low < 0.5 * (alone.high - alone.low)
    assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=0.1)
    assert "50 clusters" in together.method
    assert mean(copies, clusters=clusters, seed=3) == together
    assert mean(copies, clusters=clusters, seed=4) != together


def test_clusters_of_different_sizes_weigh_by_their_values() -> None:
    assert mean([1, 1, 1, 0], clusters=["a", "a", "a", "b"]).value == 0.75


def test_the_interval_holds_as_often_as_it_says() -> None:
    """Of 400 experiments the interval should hold the truth in 380; three standard deviations are 13."""
    chance = random.Random(0)
    n_held = 0
    for _ in range(400):
        estimate = proportion(sum(chance.random() < 0.3 for _ in range(80)), 80)
        n_held += estimate.low <= 0.3 <= estimate.high
    assert 367 <= n_held <= 393


def test_groups_count_the_same() -> None:
    estimate = macro_mean({"small": [1, 0], "large": [1] * 98 + [0, 0]})
    assert estimate.value == pytest.approx((0.5 + 0.98) / 2)
    assert estimate.n == 102
    by_hand = math.sqrt(0.25 + 0.98 * 0.02 / 99) / 2 * 1.959964
    assert estimate.high - estimate.value == pytest.approx(by_hand, rel=1e-4)


def test_percentiles_are_interpolated() -> None:
    assert [percentile([1.0, 2.0, 4.0], share) for share in (0, 0.25, 0.5, 0.75, 1)] == [1, 1.5, 2, 3, 4]


@pytest.mark.parametrize(
    ("values", "options", "complaint"),
    [
        ([], {}, "at least one value"),
        ([1, math.nan], {}, "value 1 is nan"),
        ([1, 2], {"clusters": ["a"]}, "2 values need 2 clusters"),
        ([1, 2], {"clusters": ["a", "a"]}, "one cluster"),
        ([0, 1], {"level": 1.0}, "between 0 and 1"),
    ],
)
def test_refusals(values: list[float], options: dict[str, object], complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        mean(values, **options)  # type: ignore[arg-type]


def test_more_refusals() -> None:
    for n_right, n in ((1, 0), (-1, 5), (6, 5)):
        with pytest.raises(InvalidInputError):
            proportion(n_right, n)
    with pytest.raises(InvalidInputError, match="at least one group"):
        macro_mean({})
    with pytest.raises(InvalidInputError, match="'alone' has one value"):
        macro_mean({"alone": [1]})


def test_groups_without_any_spread_still_leave_doubt() -> None:
    """All wrong in 27 groups of 2 is no proof that all are always wrong: the interval is that of 54 items."""
    nothing = macro_mean({str(n): [0, 0] for n in range(27)})
    assert (nothing.value, nothing.low) == (0.0, 0.0)
    assert nothing.high == pytest.approx(proportion(0, 54).high)
    parted = macro_mean({"a": [1, 1, 1], "b": [0, 0, 0]})
    assert parted.low == pytest.approx(proportion(3, 6).low)
    assert parted.method == "Wilson, over 2 groups"
    assert macro_mean({"a": [1, 0], "b": [0, 0]}).method == "normal, over 2 groups"
