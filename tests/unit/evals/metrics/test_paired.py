"""Two runs on the same items."""

import pytest

from circius.base.errors import InvalidInputError
from circius.evals.metrics.paired import compare, mcnemar


def scores(values: list[float]) -> dict[str, float]:
    return {f"item {place:03}": value for place, value in enumerate(values)}


def test_mcnemar_is_a_coin() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(0, 6) == 2 / 64
    assert mcnemar(6, 0) == 2 / 64
    assert mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 1024)
    # Both ways of computing agree at the border, and large numbers do not overflow.
    assert mcnemar(460, 540) == pytest.approx(mcnemar(459, 540), rel=0.15)
    assert 0 < mcnemar(5000, 7000) < 1e-60


def test_right_and_wrong() -> None:
    first = scores([1] * 50 + [0] * 50)
    second = scores([1] * 45 + [0] * 5 + [1] * 20 + [0] * 30)
    paired = compare(first, second)
    assert (paired.n, paired.first, paired.second) == (100, 0.5, 0.65)
    assert paired.difference == pytest.approx(0.15)
    assert (paired.n_first_better, paired.n_second_better) == (5, 20)
    assert paired.p_value == mcnemar(5, 20)
    assert 0.05 < paired.low < 0.15 < paired.high < 0.25
    assert "McNemar" in paired.method


def test_no_difference_is_no_certainty() -> None:
    paired = compare(scores([1, 0, 1]), scores([1, 0, 1]))
    assert paired.difference == 0
    assert paired.low < 0 < paired.high
    assert paired.p_value == 1.0


def test_other_scores_are_resampled() -> None:
    first = scores([0.1 * (place % 7) for place in range(60)])
    better = {name: value + 0.2 + 0.01 * (int(name[-1]) - 4) for name, value in first.items()}
    paired = compare(first, better, seed=1)
    assert paired.low < paired.difference < paired.high
    assert paired.difference == pytest.approx(0.205)
    assert paired.high - paired.low < 0.03
    assert 0 < paired.p_value < 0.001
    assert "bootstrap of 60" in paired.method
    assert compare(first, better, seed=1) == paired
    assert compare(better, first, seed=1).difference == -paired.difference


def test_clusters_are_less_certain() -> None:
    """Forty items that come in two passages say less than forty of their own."""
    first = scores([0.0] * 40)
    second = scores([1.0] * 25 + [0.0] * 15)
    clusters = {name: int(name[-3:]) // 10 for name in first}
    alone, together = compare(first, second), compare(first, second, clusters=clusters)
    assert together.high - together.low > 1.5 * (alone.high - alone.low)
    with pytest.raises(InvalidInputError, match="has no cluster"):
        compare(first, second, clusters={})


def test_the_items_must_be_the_same() -> None:
    with pytest.raises(InvalidInputError, match="1 only in the first, 2 only in the second, for example 'a'"):
        compare({"a": 1, "b": 1}, {"b": 1, "c": 0, "d": 0})
    with pytest.raises(InvalidInputError, match="no items"):
        compare({}, {})
