"""Training goes as it went: the losses of fifty steps, which any change of the numbers would move."""

import json
from typing import Literal

import pytest

from tests.golden.loss_curve import FILE, KINDS, N_STEPS, curve

GOLDEN = json.loads(FILE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_curve_is_the_golden_one(kind: Literal["adamw", "muon"]) -> None:
    """Rounding differs between processors: by a few millionths in the end between torch's kernels for two of them."""
    found = curve(kind)
    assert len(found) == len(GOLDEN[kind]) == N_STEPS
    for step, (now, then) in enumerate(zip(found, GOLDEN[kind], strict=True)):
        assert now[0] == pytest.approx(then[0], rel=1e-4), step
        assert now[1] == pytest.approx(then[1], rel=1e-3), step
    assert found[-1][0] < 0.6 * found[0][0], "it learns"
