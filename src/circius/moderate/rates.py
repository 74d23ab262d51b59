"""Shares with their uncertainty, and the curve of a classifier."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z_95 = 1.959963984540054
"""The quantile of the normal distribution for an interval of 95 %."""


@dataclass(frozen=True)
class Rate:
    """So many of so many."""

    hits: int
    n: int

    @property
    def share(self) -> float:
        """Between 0 and 1; not a number where there was nothing to count."""
        return self.hits / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval of 95 %, which stays inside 0 and 1 and is right for all of all.

        >>> [round(end, 4) for end in Rate(175, 175).interval]
        [0.9785, 1.0]
        """
        if not self.n:
            return 0.0, 1.0
        p, n = self.share, self.n
        centre = (p + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
        half = Z_95 / (1 + Z_95**2 / n) * math.sqrt(p * (1 - p) / n + Z_95**2 / (4 * n * n))
        # Where none or all are hits one end is exact, and rounding must not put it elsewhere.
        return max(0.0, centre - half) if self.hits else 0.0, min(1.0, centre + half) if self.hits < n else 1.0

    def __str__(self) -> str:
        """
        >>> str(Rate(3, 4))
        '75.0 % (3 of 4; 30.1 to 95.4)'
        """
        if not self.n:
            return "none to count"
        low, high = self.interval
        return f"{100 * self.share:.1f} % ({self.hits} of {self.n}; {100 * low:.1f} to {100 * high:.1f})"


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """A classifier's calls against the truth, of one class against the rest."""

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    @property
    def precision(self) -> Rate:
        return Rate(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> Rate:
        return Rate(self.true_positive, self.true_positive + self.false_negative)

    @property
    def f1(self) -> float:
        total = 2 * self.true_positive + self.false_positive + self.false_negative
        return 2 * self.true_positive / total if total else math.nan

    @classmethod
    def of(cls, calls: Sequence[bool], truth: Sequence[bool]) -> "Confusion":
        pairs = list(zip(calls, truth, strict=True))
        return cls(
            true_positive=pairs.count((True, True)),
            false_positive=pairs.count((True, False)),
            false_negative=pairs.count((False, True)),
            true_negative=pairs.count((False, False)),
        )


@dataclass(frozen=True, kw_only=True)
class Point:
    """The curve at one threshold: what scores at least this much is called positive."""

    threshold: float
    confusion: Confusion


def curve(scores: Sequence[float], truth: Sequence[bool]) -> list[Point]:
    """A point for every threshold that makes a difference, the strictest first.

    >>> [(p.threshold, p.confusion.precision.share, p.confusion.recall.share) for p in curve([.9, .2], [True, False])]
    [(0.9, 1.0, 1.0), (0.2, 0.5, 1.0)]
    """
    return [
        Point(threshold=threshold, confusion=Confusion.of([score >= threshold for score in scores], truth))
        for threshold in sorted(set(scores), reverse=True)
    ]


def at_recall(points: Sequence[Point], recall: float) -> Point | None:
    """The point of the best precision whose recall is at least this; None where none has it."""
    enough = [point for point in points if point.confusion.recall.n and point.confusion.recall.share >= recall]
    return max(enough, key=lambda point: (point.confusion.precision.share, point.threshold), default=None)


def average_precision(points: Sequence[Point]) -> float:
    """The precision over the steps of recall, from the strictest threshold on."""
    total, before = 0.0, 0.0
    for point in points:
        recall = point.confusion.recall.share
        total += (recall - before) * point.confusion.precision.share
        before = recall
    return total
