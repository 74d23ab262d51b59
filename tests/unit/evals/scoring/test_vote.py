"""Majority votes and pass@k."""

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circius.base.errors import InvalidInputError
from circius.evals.scoring.equality import is_equal
from circius.evals.scoring.pass_at_k import pass_at_k
from circius.evals.scoring.vote import majority


def test_most_votes_win() -> None:
    vote = majority(["9", "8", None, "8"])
    assert (vote.answer, vote.index, vote.n_votes, vote.n_parsed, vote.n) == ("8", 1, 2, 3, 4)


def test_what_cannot_be_read_does_not_vote() -> None:
    assert majority([None, None, None, "8"]).answer == "8"
    vote = majority([None, None])
    assert (vote.answer, vote.index, vote.n_votes, vote.n_parsed) == (None, None, 0, 0)


def test_ties() -> None:
    assert majority(["9", "8"]).answer == "9"
    assert majority(["9", "8"], [-5.0, -4.0]).answer == "8"
    assert majority(["9", "8", "8", "9"], [-1.0, -3.0, -3.0, -9.0]).answer == "8"
    assert majority(["9", "8"], [-4.0, -4.0]).answer == "9"
    # More votes beat any likelihood, and what did not vote weighs nothing.
    assert majority(["9", "8", "8", None], [-0.1, -99.0, -99.0, 0.0]).answer == "8"


def test_equal_answers_vote_together() -> None:
    vote = majority(["7", "0.5", r"\frac12", "7", "1/2"], same=is_equal)
    assert (vote.answer, vote.n_votes) == ("0.5", 3)


@pytest.mark.parametrize(
    ("answers", "weights", "complaint"),
    [
        ([], None, "at least one sample"),
        (["a"], [1.0, 2.0], "as many"),
        (["a", "b"], [0.0, math.nan], "sample 1 is NaN"),
    ],
)
def test_refusals(answers: list[str | None], weights: list[float] | None, complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        majority(answers, weights)


@given(st.lists(st.sampled_from(["a", "b", None]), min_size=1, max_size=9))
def test_the_winner_has_the_most(answers: list[str | None]) -> None:
    vote = majority(answers)
    assert vote.n_votes == max(answers.count("a"), answers.count("b"))
    assert vote.answer is None or answers[vote.index or 0] == vote.answer


@given(st.integers(1, 8), st.data())
def test_pass_at_k_counts_draws(n: int, data: st.DataObject) -> None:
    """Its definition, counted: the share of all draws of k samples that hold one that passes."""
    n_passed, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    draws = list(combinations(range(n), k))
    assert pass_at_k(n, n_passed, k) == pytest.approx(sum(min(draw) < n_passed for draw in draws) / len(draws))


def test_pass_at_k_of_many() -> None:
    assert pass_at_k(10_000, 1, 1) == 1e-4
    assert pass_at_k(200, 0, 100) == 0.0
    assert pass_at_k(200, 200, 1) == 1.0


@pytest.mark.parametrize(("n", "n_passed", "k"), [(5, 0, 6), (5, 0, 0), (5, 6, 1), (5, -1, 1), (0, 0, 1)])
def test_pass_at_k_refuses(n: int, n_passed: int, k: int) -> None:
    with pytest.raises(InvalidInputError):
        pass_at_k(n, n_passed, k)
