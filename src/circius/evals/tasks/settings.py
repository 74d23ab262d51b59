"""What the user may choose about tasks whose answers are samples or programs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from circius.base.errors import InvalidInputError

RunPrograms = Callable[[Sequence[str]], list[tuple[bool, str]]]
"""For each program whether it ran past its last line, and in one line why not."""

TEMPERATURE, TOP_P = 0.6, 0.95
"""Of samples that vote: Minerva's; the paper gives none."""


def no_programs(programs: Sequence[str]) -> list[tuple[bool, str]]:
    """For runs that judge no programs."""
    raise InvalidInputError("this run was given nothing to run programs with")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """None stands for what the protocol of a task says.

    Attributes:
        samples: how many answers to draw; 0 for greedy ones alone.
        temperature, top_p: how to draw them.
        run_programs: runs what a model wrote, where it can do no harm.
    """

    samples: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    run_programs: RunPrograms = no_programs

    def __post_init__(self) -> None:
        if self.samples is not None and self.samples < 0:
            raise InvalidInputError(f"samples must be 0 or more, got {self.samples}")
        if self.temperature is not None and not self.temperature > 0:
            raise InvalidInputError(
                f"samples need a temperature above 0, got {self.temperature}; for greedy answers ask for 0 samples"
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InvalidInputError(f"top_p must be above 0 and at most 1, got {self.top_p}")
