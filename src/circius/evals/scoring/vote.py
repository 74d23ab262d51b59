"""The answer that most samples agree on."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from circius.base.errors import InvalidInputError

Same = Callable[[str, str], bool]


@dataclass(frozen=True, kw_only=True)
class Vote:
    """What a vote came to.

    Attributes:
        answer: the winner as its first sample has it; None if no sample could be read.
        index: which sample that is; None as well.
        n_votes: how many samples say the same.
        n_parsed: how many samples could be read.
        n: how many samples there were.
    """

    answer: str | None
    index: int | None
    n_votes: int
    n_parsed: int
    n: int


def majority(
    answers: Sequence[str | None], loglikelihoods: Sequence[float] | None = None, *, same: Same | None = None
) -> Vote:
    """The answer of most samples. A sample that could not be read (None) does not vote.

    A tie goes to the answer whose samples have the higher log-likelihood, summed; without any, or where those tie too,
    to the one that came first.

    loglikelihoods: one for each sample, such as the sum of its tokens' log-probabilities.
    same: whether two answers are one; by default, whether they are the same text. An answer joins the first group
        whose first member it equals, so that the outcome is defined even where `same` is not transitive.

    >>> majority(["8", None, "9", "8"]).answer
    '8'

    Raises:
        InvalidInputError: no samples, as many log-likelihoods as there are not samples, or one that is NaN.
    """
    if not answers:
        raise InvalidInputError("a vote needs at least one sample, got none")
    weights = [0.0] * len(answers) if loglikelihoods is None else list(loglikelihoods)
    if len(weights) != len(answers):
        raise InvalidInputError(f"a vote of {len(answers)} samples needs as many log-likelihoods, got {len(weights)}")
    if any(math.isnan(weight) for weight in weights):
        raise InvalidInputError(f"the log-likelihood of sample {[*map(math.isnan, weights)].index(True)} is NaN")
    groups: list[list[int]] = []
    for index, answer in enumerate(answers):
        if answer is not None:
            _join(groups, index, answers, same)
    n_parsed = sum(map(len, groups))
    if not groups:
        return Vote(answer=None, index=None, n_votes=0, n_parsed=0, n=len(answers))
    # max keeps the first of equals, and groups stand in the order of their first samples.
    winner = max(groups, key=lambda group: (len(group), math.fsum(weights[index] for index in group)))
    return Vote(answer=answers[winner[0]], index=winner[0], n_votes=len(winner), n_parsed=n_parsed, n=len(answers))


def _join(groups: list[list[int]], index: int, answers: Sequence[str | None], same: Same | None) -> None:
    answer = answers[index]
    for group in groups:
        first = answers[group[0]]
        assert answer is not None
        assert first is not None
        if answer == first or (same is not None and same(first, answer)):
            group.append(index)
            return
    groups.append([index])
