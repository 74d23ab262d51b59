"""Whether a step may be taken: not if its loss or its gradient is no number or, where so asked, far too large."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean, pstdev
from typing import Any

from circius.base.errors import CirciusError, ConfigError


@dataclass(kw_only=True)
class Guard:
    """Counts in `n_skipped` what it did not let pass; what it did let pass, it remembers.

    max_z: by how many standard deviations loss or gradient norm may lie above the mean of the last `n_kept` steps, once
        `n_least` of them are known. None, the beginning, lets every finite number pass.
    most_in_a_row: of steps that are skipped, after which it gives up.

    Raises:
        ConfigError: numbers that make no sense.
    """

    max_z: float | None = None
    n_kept: int = 128
    n_least: int = 32
    most_in_a_row: int = 20
    n_skipped: int = field(default=0, init=False)
    _in_a_row: int = field(default=0, init=False)
    _losses: deque[float] = field(init=False)
    _norms: deque[float] = field(init=False)

    def __post_init__(self) -> None:
        if (self.max_z is not None and not self.max_z > 0) or not 2 <= self.n_least <= self.n_kept:
            raise ConfigError(
                f"a guard's max_z is above 0, and it knows 2 or more steps, at most those it keeps: got max_z "
                f"{self.max_z}, n_least {self.n_least}, n_kept {self.n_kept}"
            )
        if self.most_in_a_row < 1:
            raise ConfigError(f"a guard skips 1 step or more before it gives up, got {self.most_in_a_row}")
        self._losses, self._norms = deque(maxlen=self.n_kept), deque(maxlen=self.n_kept)

    def allows(self, loss: float, norm: float) -> bool:
        """Whether to take a step of this mean loss and this gradient norm.

        Raises:
            CirciusError: too many steps in a row could not be taken.
        """
        reason = self._objection(loss, norm)
        if reason is None:
            self._losses.append(loss)
            self._norms.append(norm)
            self._in_a_row = 0
            return True
        self.n_skipped += 1
        self._in_a_row += 1
        if self._in_a_row >= self.most_in_a_row:
            raise CirciusError(
                f"{self._in_a_row} steps in a row were skipped, the last because {reason}: look at the data, and begin "
                "anew (--restart) with a smaller learning rate"
            )
        return False

    def _objection(self, loss: float, norm: float) -> str | None:
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return f"its loss is {loss} and its gradient norm {norm}"
        if self.max_z is None or len(self._losses) < self.n_least:
            return None
        for name, value, known in (("loss", loss, self._losses), ("gradient norm", norm, self._norms)):
            mean, deviation = fmean(known), pstdev(known)
            if value > mean + self.max_z * deviation:
                return f"its {name} of {value:.4g} is far above the {mean:.4g} ± {deviation:.2g} of those before"
        return None

    def state(self) -> dict[str, Any]:
        """What JSON can hold, for `restore`."""
        return {
            "losses": list(self._losses),
            "norms": list(self._norms),
            "n_skipped": self.n_skipped,
            "in_a_row": self._in_a_row,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on where the guard with that state was."""
        self._losses, self._norms = (deque(state[name], maxlen=self.n_kept) for name in ("losses", "norms"))
        self.n_skipped, self._in_a_row = state["n_skipped"], state["in_a_row"]
