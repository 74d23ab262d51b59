"""How large a step is: pure functions from the number of steps taken so far to a factor on the learning rate.

Step 0 of a warm-up over n steps has the factor 1 / n, step n - 1 has 1: no step is wasted at 0. A descent to `floor`
over n steps would reach it at the step after the last, for the same reason.
"""

import math
from dataclasses import dataclass
from typing import Literal

from circius.base.errors import ConfigError

Kind = Literal["constant", "cosine", "wsd"]
Descent = Literal["linear", "sqrt"]
_KINDS = ("constant", "cosine", "wsd")
_DESCENTS = ("linear", "sqrt")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """`schedule(step)` is the factor of that step; past the last step it stays at the floor.

    kind: "constant" after the warm-up; "cosine" from 1 to `floor` over what is left (arXiv 1608.03983); "wsd": warm-up,
        stable, decay (arXiv 2404.06395), of which the last `n_decay` steps descend.
    descent: of "wsd", linear or 1 - sqrt (arXiv 2405.18392).

    Raises:
        ConfigError: numbers that contradict each other, or that the kind has no use for.
    """

    n_steps: int
    kind: Kind = "cosine"
    n_warmup: int = 0
    n_decay: int = 0
    floor: float = 0.0
    descent: Descent = "linear"

    def __post_init__(self) -> None:
        if self.kind not in _KINDS or self.descent not in _DESCENTS:
            raise ConfigError(
                f"a schedule is {', '.join(_KINDS)}, with a descent that is {' or '.join(_DESCENTS)}: got "
                f"{self.kind!r} and {self.descent!r}"
            )
        if self.n_steps < 1 or self.n_warmup < 0 or self.n_decay < 0 or self.n_warmup + self.n_decay > self.n_steps:
            raise ConfigError(
                f"a schedule has 1 step or more, and warm-up and decay fit into them: got {self.n_steps} steps, "
                f"{self.n_warmup} of warm-up, {self.n_decay} of decay"
            )
        if self.n_decay and self.kind != "wsd":
            raise ConfigError(
                f"n_decay is for the wsd schedule; a {self.kind} one has no use for it, got {self.n_decay}"
            )
        if not 0 <= self.floor <= 1:
            raise ConfigError(f"a schedule's floor is a share of the learning rate, from 0 to 1: got {self.floor}")

    def __call__(self, step: int) -> float:
        if self.kind == "constant":
            return constant(step, n_warmup=self.n_warmup)
        if self.kind == "cosine":
            return cosine(step, n_steps=self.n_steps, n_warmup=self.n_warmup, floor=self.floor)
        return warmup_stable_decay(
            step,
            n_steps=self.n_steps,
            n_warmup=self.n_warmup,
            n_decay=self.n_decay,
            floor=self.floor,
            descent=self.descent,
        )


def constant(step: int, *, n_warmup: int = 0) -> float:
    """1 after a linear warm-up.

    >>> [constant(step, n_warmup=4) for step in range(6)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    """
    return min(1.0, (step + 1) / n_warmup) if n_warmup else 1.0


def cosine(step: int, *, n_steps: int, n_warmup: int = 0, floor: float = 0.0) -> float:
    """Half a wave from 1 to `floor` after a linear warm-up.

    >>> [round(cosine(step, n_steps=4, floor=0.1), 3) for step in range(6)]
    [1.0, 0.868, 0.55, 0.232, 0.1, 0.1]
    """
    if step < n_warmup:
        return constant(step, n_warmup=n_warmup)
    return floor + (1 - floor) * (1 + math.cos(math.pi * _progress(step, n_warmup, n_steps))) / 2


def warmup_stable_decay(
    step: int, *, n_steps: int, n_warmup: int = 0, n_decay: int = 0, floor: float = 0.0, descent: Descent = "linear"
) -> float:
    """A linear warm-up, a plain, and over the last `n_decay` steps a descent to `floor`.

    >>> [warmup_stable_decay(step, n_steps=8, n_warmup=2, n_decay=4) for step in range(8)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]
    >>> [warmup_stable_decay(step, n_steps=4, n_decay=4, descent="sqrt") for step in range(2)]
    [1.0, 0.5]
    """
    if step < n_steps - n_decay:
        return constant(step, n_warmup=n_warmup)
    progress = _progress(step, n_steps - n_decay, n_steps)
    return floor + (1 - floor) * (1 - (progress if descent == "linear" else math.sqrt(progress)))


def _progress(step: int, begin: int, end: int) -> float:
    """How much of the way from `begin` to `end` is done, from 0 to 1."""
    return min(1.0, (step - begin) / (end - begin)) if end > begin else 1.0
