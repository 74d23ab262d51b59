"""One check of a checkpoint."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["pass", "fail", "skipped"]


@dataclass(frozen=True, kw_only=True)
class Result:
    """found, allowed: numbers to compare, where the check has them: it passes if `found` is at most `allowed`.
    detail: in words, what was compared, or why it was skipped."""

    name: str
    status: Status
    detail: str
    found: float | None = None
    allowed: float | None = None

    @classmethod
    def within(cls, name: str, found: float, allowed: float, detail: str) -> "Result":
        """Passes if the difference that was found is allowed; what is not a number never is."""
        return cls(
            name=name, status="pass" if found <= allowed else "fail", detail=detail, found=found, allowed=allowed
        )

    @classmethod
    def of(cls, name: str, passed: bool, detail: str) -> "Result":
        return cls(name=name, status="pass" if passed else "fail", detail=detail)

    @classmethod
    def skipped(cls, name: str, why: str) -> "Result":
        return cls(name=name, status="skipped", detail=why)
