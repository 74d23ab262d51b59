"""Factors by hand, the ends of every piece, and what makes no sense."""

import math
from typing import Any

import pytest

from circius.base.errors import ConfigError
from circius.train.schedule import Schedule, constant, cosine, warmup_stable_decay

pytestmark = pytest.mark.quick


def test_warm_up_wastes_no_step_and_ends_at_one() -> None:
    for schedule in (
        Schedule(kind="constant", n_steps=100, n_warmup=10),
        Schedule(kind="cosine", n_steps=100, n_warmup=10),
        Schedule(kind="wsd", n_steps=100, n_warmup=10, n_decay=20),
    ):
        assert [schedule(step) for step in range(11)] == pytest.approx([*(n / 10 for n in range(1, 11)), 1.0], abs=1e-3)


def test_cosine_is_half_way_in_the_middle_and_at_the_floor_at_the_end() -> None:
    factors = [cosine(step, n_steps=110, n_warmup=10, floor=0.2) for step in range(111)]
    assert factors[10] == 1
    assert factors[60] == pytest.approx(0.6)
    assert factors[35] == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2)
    assert factors[110] == pytest.approx(0.2)
    assert cosine(10_000, n_steps=110, n_warmup=10, floor=0.2) == pytest.approx(0.2)
    assert factors[10:] == sorted(factors[10:], reverse=True)


@pytest.mark.parametrize(("descent", "half_way"), [("linear", 0.55), ("sqrt", 0.1 + 0.9 * (1 - math.sqrt(0.5)))])
def test_warm_up_stable_decay(descent: Any, half_way: float) -> None:
    schedule = Schedule(kind="wsd", n_steps=100, n_warmup=10, n_decay=40, floor=0.1, descent=descent)
    assert {schedule(step) for step in range(10, 61)} == {1.0}
    assert schedule(80) == pytest.approx(half_way)
    assert 0.1 < schedule(99) < 0.13
    assert schedule(100) == schedule(1000) == pytest.approx(0.1)


def test_pieces_of_no_length() -> None:
    assert constant(0) == 1
    assert cosine(0, n_steps=1) == 1
    assert cosine(5, n_steps=5, n_warmup=5) == 0
    assert [warmup_stable_decay(step, n_steps=3) for step in range(3)] == [1, 1, 1]
    assert [Schedule(kind="wsd", n_steps=3, n_warmup=1, n_decay=2)(step) for step in range(3)] == [1, 1, 0.5]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"kind": "linear"}, "a schedule is constant, cosine, wsd"),
        ({"kind": "wsd", "descent": "square"}, "'square'"),
        ({"n_steps": 0}, "1 step or more"),
        ({"n_warmup": -1}, "-1 of warm-up"),
        ({"kind": "wsd", "n_warmup": 6, "n_decay": 5}, "10 steps, 6 of warm-up, 5 of decay"),
        ({"kind": "cosine", "n_decay": 5}, "n_decay is for the wsd schedule"),
        ({"floor": 1.5}, "from 0 to 1: got 1.5"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        Schedule(**{"n_steps": 10, **given})
