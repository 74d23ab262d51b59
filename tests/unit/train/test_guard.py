"""Which steps are not taken, when it gives up, and that it goes on where it was."""

import json
import math
from typing import Any

import pytest

from circius.base.errors import CirciusError, ConfigError
from circius.train.guard import Guard

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (1.0, math.inf), (-math.inf, 1.0), (1.0, math.nan)])
def test_no_number_no_step(loss: float, norm: float) -> None:
    guard = Guard()
    assert guard.allows(2.0, 1.0)
    assert not guard.allows(loss, norm)
    assert guard.allows(1e9, 1e9), "spikes are no concern unless asked for"
    assert guard.n_skipped == 1


def _warmed(**settings: Any) -> Guard:
    guard = Guard(max_z=5, n_kept=8, n_least=4, **settings)
    for step in range(6):
        assert guard.allows(2.0 + 0.1 * (step % 2), 1.0 + 0.1 * (step % 2))
    return guard


def test_a_spike_is_skipped_and_not_remembered() -> None:
    guard = _warmed()
    assert not guard.allows(2.5, 1.0), "five deviations of 0.05 above the mean of 2.05 is 2.3"
    assert not guard.allows(2.0, 1.5)
    assert guard.allows(2.29, 1.29)
    assert guard.allows(0.1, 0.01), "small is no spike"
    assert guard.n_skipped == 2


def test_few_known_steps_say_nothing() -> None:
    guard = Guard(max_z=2, n_least=4)
    assert all(guard.allows(loss, 1.0) for loss in (1.0, 1.1, 50.0))


def test_it_gives_up_when_nothing_passes() -> None:
    guard = Guard(most_in_a_row=3)
    for _ in range(2):
        assert not guard.allows(math.nan, 1.0)
    assert guard.allows(1.0, 1.0)
    for _ in range(2):
        assert not guard.allows(math.nan, 1.0)
    with pytest.raises(CirciusError, match="3 steps in a row were skipped, the last because its loss is nan"):
        guard.allows(math.nan, 1.0)


def test_it_goes_on_where_it_was() -> None:
    guard = _warmed()
    guard.allows(math.nan, 1.0)
    again = Guard(max_z=5, n_kept=8, n_least=4)
    again.restore(json.loads(json.dumps(guard.state())))
    for loss in (2.0, 9.0, 2.1, 2.2, 2.3, 2.6, 2.0):
        assert guard.allows(loss, 1.0) == again.allows(loss, 1.0)
    assert guard.state() == again.state()


@pytest.mark.parametrize("given", [{"max_z": 0}, {"n_least": 1}, {"n_least": 9, "n_kept": 8}, {"most_in_a_row": 0}])
def test_what_makes_no_sense_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Guard(**given)
