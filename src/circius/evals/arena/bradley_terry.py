"""Scores that explain votes: the chance that one model beats another depends on the difference of their scores alone.

Bradley and Terry's model of 1952, fitted by Hunter's iteration, on the scale of chess ratings: 400 points are odds of
ten to one, and the mean is 1000. A tie is half a win for each. A model that has never lost would have an infinite
score, so every two models that have met are given half a tie that never took place.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from circius.evals.arena.matches import Vote

MEAN, SPREAD = 1000.0, 400.0
PRIOR_MATCHES = 0.5
"""How much of a match between each two models is added as a tie."""
_MOST_ROUNDS, _PRECISION = 10_000, 1e-9
N_DRAWS = 1000


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One model's score with the interval that holds 95 % of the bootstrap's, and what it is made of."""

    model: str
    score: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int


def standings(votes: Sequence[Vote], *, seed: int = 0, n_draws: int = N_DRAWS) -> list[Standing]:
    """The models that have met, the best first; empty without votes.

    The bootstrap draws prompts, not votes: votes on one prompt depend on each other.
    """
    if not votes:
        return []
    models = sorted({model for vote in votes for model in (vote.first, vote.second)})
    scores = fitted(votes, models)
    by_prompt: dict[str, list[Vote]] = {}
    for vote in votes:
        by_prompt.setdefault(vote.prompt, []).append(vote)
    groups = [by_prompt[prompt] for prompt in sorted(by_prompt)]
    generator = random.Random(seed)
    drawn: dict[str, list[float]] = {model: [] for model in models}
    for _ in range(n_draws):
        some = [vote for group in generator.choices(groups, k=len(groups)) for vote in group]
        for model, score in fitted(some, models).items():
            drawn[model].append(score)
    found = [_standing(model, scores[model], sorted(drawn[model]), votes) for model in models]
    return sorted(found, key=lambda standing: -standing.score)


def fitted(votes: Sequence[Vote], models: Sequence[str]) -> dict[str, float]:
    """The scores of these models; one that is in no vote stays at the mean of the others' scale.

    >>> from circius.evals.arena.matches import Vote
    >>> votes = [Vote(match="", prompt="", first="a", second="b", winner="first")] * 10
    >>> {model: round(score) for model, score in fitted(votes, ["a", "b"]).items()}
    {'a': 1323, 'b': 677}
    """
    points = dict.fromkeys(models, 0.0)
    met: dict[str, dict[str, float]] = {model: {} for model in models}
    for vote in votes:
        points[vote.first] += vote.first_share
        points[vote.second] += 1 - vote.first_share
        for one, other in ((vote.first, vote.second), (vote.second, vote.first)):
            met[one][other] = met[one].get(other, 0.0) + 1
    for model, others in met.items():
        points[model] += PRIOR_MATCHES / 2 * len(others)
        for other in others:
            others[other] += PRIOR_MATCHES
    strength = dict.fromkeys(models, 1.0)
    for _ in range(_MOST_ROUNDS):
        new = {model: _improved(model, points[model], met[model], strength) for model in models}
        middle = math.exp(math.fsum(math.log(own) for own in new.values()) / len(new))
        new = {model: own / middle for model, own in new.items()}
        moved = max(abs(math.log(new[model] / strength[model])) for model in models)
        strength = new
        if moved < _PRECISION:
            break
    return {model: MEAN + SPREAD * math.log10(own) for model, own in strength.items()}


def _improved(model: str, points: float, met: Mapping[str, float], strength: Mapping[str, float]) -> float:
    if not met:
        return strength[model]
    return points / math.fsum(n / (strength[model] + strength[other]) for other, n in met.items())


def _standing(model: str, score: float, drawn: Sequence[float], votes: Sequence[Vote]) -> Standing:
    shares = [vote.first_share for vote in votes if vote.first == model]
    shares += [1 - vote.first_share for vote in votes if vote.second == model]
    return Standing(
        model=model,
        score=score,
        low=drawn[int(0.025 * (len(drawn) - 1))] if drawn else score,
        high=drawn[math.ceil(0.975 * (len(drawn) - 1))] if drawn else score,
        wins=shares.count(1.0),
        ties=shares.count(0.5),
        losses=shares.count(0.0),
    )
