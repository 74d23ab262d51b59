"""What the machine is doing; nothing here depends on how busy the one is that runs the tests."""

import pytest

from circius.engine import machine
from circius.engine.machine import Watch


def moments(monkeypatch: pytest.MonkeyPatch, *found: tuple[float, float, float | None]) -> None:
    pending = [machine._Moment(*moment) for moment in found]
    monkeypatch.setattr(machine, "_now", lambda: pending.pop(0))
    monkeypatch.setattr(machine, "n_cores", lambda: 2)


@pytest.mark.parametrize(
    ("own_s", "busy_s", "share"),
    [(20.0, 20.0, 0.0), (10.0, 11.0, 0.05), (5.0, 20.0, 0.75), (0.0, 0.0, 0.0), (20.5, 20.0, 0.0), (0.0, 30.0, 1.0)],
)
def test_the_share_of_others(monkeypatch: pytest.MonkeyPatch, own_s: float, busy_s: float, share: float) -> None:
    moments(monkeypatch, (100.0, 3.0, 50.0), (110.0, 3.0 + own_s, 50.0 + busy_s))
    with Watch() as watch:
        pass
    assert watch.foreign_share == pytest.approx(share)


def test_a_system_that_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    moments(monkeypatch, (0.0, 0.0, None), (1.0, 1.0, None))
    with Watch() as watch:
        pass
    assert watch.foreign_share is None
    assert not machine.is_disturbed(watch.foreign_share)


def test_a_busy_neighbour_disturbs() -> None:
    assert machine.is_disturbed(0.2)
    assert not machine.is_disturbed(0.01)


def test_the_watch_runs_here() -> None:
    with Watch() as watch:
        sum(range(1000))
    assert watch.foreign_share is None or 0 <= watch.foreign_share <= 1
    assert machine.n_cores() >= 1
    assert machine.processor_name()
