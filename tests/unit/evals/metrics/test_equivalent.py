"""The Llama 2 that has the same score."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circius.base.errors import InvalidInputError
from circius.evals.metrics.equivalent import curves, equivalent_interval, equivalent_size

POINTS = ((7.0, 40.0), (13.0, 50.0), (70.0, 70.0))


@pytest.mark.parametrize(("curve", "size_b"), [("mistral-rerun", 23.0), ("llama-2", 25.0), ("llama-2-released", 24.5)])
def test_the_papers_mmlu(curve: str, size_b: float) -> None:
    """The paper's Figure 5 says about 23B, 3.3 times its own size."""
    found = equivalent_size(60.1, curves()[curve].points["mmlu"])
    assert found.kind == "inside"
    assert found.size_b == pytest.approx(size_b, abs=0.05)
    assert found.ratio == pytest.approx(size_b / 7, abs=0.01)


def test_curves_say_where_they_are_from() -> None:
    for curve in curves().values():
        assert curve.protocol
        assert curve.source
        assert curve.mark == "read"
        assert all(sizes == sorted(sizes) for sizes in ([b for b, _ in row] for row in curve.points.values()))


def test_maths_falls_with_size() -> None:
    found = equivalent_size(26.0, curves()["llama-2"].points["maths"])
    assert (found.kind, found.size_b, found.ratio) == ("undefined", None, None)
    assert str(found) == "undefined: the curve is not monotone"
    assert "maths" not in curves()["llama-2-released"].points


def test_beyond_the_ends() -> None:
    assert str(equivalent_size(39.9, POINTS)) == "< 7.0B (< 1.0×)"
    assert str(equivalent_size(70.1, POINTS)) == "> 70.0B (> 10.0×)"
    assert equivalent_size(40, POINTS).kind == equivalent_size(70, POINTS).kind == "inside"


def test_half_way_is_the_geometric_mean() -> None:
    assert equivalent_size(45, POINTS).size_b == pytest.approx(math.sqrt(7 * 13))
    assert equivalent_size(50, ((1, 50), (2, 50), (4, 60))).size_b == 1.0


@given(st.floats(0, 100), st.floats(0, 100))
def test_more_is_never_smaller(one: float, other: float) -> None:
    low, high = equivalent_interval(min(one, other), max(one, other), POINTS)
    assert low.size_b is not None
    assert high.size_b is not None
    assert low.size_b <= high.size_b * (1 + 1e-12)


@pytest.mark.parametrize(
    ("score", "points", "own", "complaint"),
    [
        (50.0, POINTS[:1], 7.0, "at least two points"),
        (50.0, POINTS[::-1], 7.0, "in order"),
        (50.0, ((0.0, 1.0), (1.0, 2.0)), 7.0, "above 0"),
        (math.nan, POINTS, 7.0, "finite"),
        (50.0, POINTS, 0.0, "above 0"),
    ],
)
def test_refusals(score: float, points: tuple[tuple[float, float], ...], own: float, complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        equivalent_size(score, points, own_size_b=own)
