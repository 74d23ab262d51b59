"""Means of ratings: over all of them for each seed, and over seeds with their deviation, as in the paper's Table 4."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

PUBLISHED: Mapping[str, str] = MappingProxyType(
    {
        "Mistral 7B Instruct, no system prompt": "6.84 ± 0.07",
        "Mistral 7B Instruct, Mistral's guard prompt": "6.58 ± 0.05",
        "Mistral 7B Instruct, Llama 2's system prompt": "6.38 ± 0.07",
        "Llama 2 13B Chat": "6.65",
    }
)
"""Table 4 of the paper: the mean of 10 iterations and their standard deviation, judged by GPT-4."""


@dataclass(frozen=True, kw_only=True)
class Rating:
    """One judgement. rating: None if the judge gave none that could be read."""

    question: str
    category: str
    seed: int
    turn: int
    rating: float | None


@dataclass(frozen=True)
class Mean:
    """The mean over seeds of each seed's mean, and the sample standard deviation of those; None for a single seed."""

    value: float
    deviation: float | None
    n_seeds: int
    n_ratings: int

    def __str__(self) -> str:
        """
        >>> str(Mean(6.84, 0.07, 10, 1600)), str(Mean(6.84, None, 1, 160))
        ('6.84 ± 0.07', '6.84')
        """
        return f"{self.value:.2f}" + ("" if self.deviation is None else f" ± {self.deviation:.2f}")


@dataclass(frozen=True, kw_only=True)
class Scores:
    """overall, by_turn (from 1), by_category: None where nothing could be read. n_failed: judgements without a rating,
    which count nowhere."""

    overall: Mean | None
    by_turn: Mapping[int, Mean | None]
    by_category: Mapping[str, Mean | None]
    n_failed: int
    n: int


def scores_of(ratings: Sequence[Rating]) -> Scores:
    """What the ratings come to."""
    turns = sorted({rating.turn for rating in ratings})
    categories = list(dict.fromkeys(rating.category for rating in ratings))
    return Scores(
        overall=_mean(ratings),
        by_turn={turn + 1: _mean(rating for rating in ratings if rating.turn == turn) for turn in turns},
        by_category={name: _mean(rating for rating in ratings if rating.category == name) for name in categories},
        n_failed=sum(rating.rating is None for rating in ratings),
        n=len(ratings),
    )


def _mean(ratings: Iterable[Rating]) -> Mean | None:
    by_seed: dict[int, list[float]] = {}
    for rating in ratings:
        if rating.rating is not None:
            by_seed.setdefault(rating.seed, []).append(rating.rating)
    if not by_seed:
        return None
    means = [math.fsum(own) / len(own) for own in by_seed.values()]
    deviation = statistics.stdev(means) if len(means) > 1 else None
    return Mean(statistics.fmean(means), deviation, len(means), sum(map(len, by_seed.values())))
