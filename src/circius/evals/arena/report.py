"""What the votes of one voter come to."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from circius.evals.arena.bradley_terry import Standing, standings
from circius.evals.arena.matches import Vote


@dataclass(frozen=True, kw_only=True)
class Report:
    """first_wins: of the votes that were no ties, the share that went to whoever stood first; None without any. twice:
    of the pairs that were judged in both orders, how many; agreed: how many of those came out the same both times."""

    voter: str
    standings: Sequence[Standing]
    n_votes: int
    first_wins: float | None
    twice: int
    agreed: int


def report(voter: str, votes: Sequence[Vote], *, seed: int = 0) -> Report:
    """The scores, and how much the order in which answers stood weighed."""
    decided = [vote.first_share for vote in votes if vote.first_share != 0.5]
    by_pair: dict[tuple[str, frozenset[str]], list[float]] = {}
    for vote in votes:
        # The share of the model whose name comes first in the alphabet, so that both orders can be compared.
        share = vote.first_share if vote.first < vote.second else 1 - vote.first_share
        by_pair.setdefault((vote.prompt, frozenset((vote.first, vote.second))), []).append(share)
    pairs = [pair for own in by_pair.values() for pair in combinations(own, 2)]
    return Report(
        voter=voter,
        standings=standings(votes, seed=seed),
        n_votes=len(votes),
        first_wins=sum(decided) / len(decided) if decided else None,
        twice=len(pairs),
        agreed=sum(one == other for one, other in pairs),
    )
