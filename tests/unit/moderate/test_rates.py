"""Shares, intervals and curves, held against their definitions and against counting."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circius.moderate.rates import Z_95, Confusion, Rate, at_recall, average_precision, curve


@given(n=st.integers(1, 400), data=st.data())
def test_wilsons_ends_are_where_the_share_is_just_z_deviations_away(n: int, data: st.DataObject) -> None:
    """What defines the interval: at each end the normal approximation of that end just reaches the share."""
    hits = data.draw(st.integers(0, n))
    low, high = Rate(hits, n).interval
    assert 0 <= low <= hits / n <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            assert abs(hits / n - end) == pytest.approx(Z_95 * math.sqrt(end * (1 - end) / n), abs=1e-9)
    assert (low == 0) == (hits == 0)
    assert (high == 1) == (hits == n)


def test_nothing_to_count_is_no_rate() -> None:
    assert math.isnan(Rate(0, 0).share)
    assert Rate(0, 0).interval == (0, 1)
    assert str(Rate(0, 0)) == "none to count"


@given(pairs=st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), st.booleans()), min_size=1, max_size=30))
def test_the_curve_counts_right_at_every_threshold(pairs: list[tuple[float, bool]]) -> None:
    scores, truth = [score for score, _ in pairs], [is_good for _, is_good in pairs]
    points = curve(scores, truth)
    assert [point.threshold for point in points] == sorted(set(scores), reverse=True)
    for point in points:
        called = [is_good for score, is_good in pairs if score >= point.threshold]
        assert point.confusion.precision == Rate(sum(called), len(called))
        assert point.confusion.recall == Rate(sum(called), sum(truth))
    assert points[-1].confusion.recall.hits == sum(truth)


def test_a_point_by_its_recall() -> None:
    points = curve([0.9, 0.8, 0.7, 0.6, 0.1], [True, False, True, True, False])
    found = at_recall(points, 0.66)
    assert found is not None
    assert (found.threshold, found.confusion.precision) == (0.6, Rate(3, 4))
    assert at_recall(curve([0.5], [False]), 0.5) is None
    assert average_precision(points) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)


def test_confusion() -> None:
    own = Confusion.of([True, True, False, False, True], [True, False, True, False, True])
    assert (own.precision, own.recall) == (Rate(2, 3), Rate(2, 3))
    assert own.f1 == pytest.approx(2 / 3)
