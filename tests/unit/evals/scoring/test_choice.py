"""The four rules by which a choice is preferred."""

import math

import pytest

from circius.base.errors import InvalidInputError
from circius.evals.scoring.choice import choice_scores

# Chosen so that each rule prefers another one.
CHOICES = [" ab", " ööö", " abcdefgh", " " + "w" * 12]
SCORES = [-4.0, -4.2, -8.4, -12.4]
ALONE = [-3.0, -4.0, -9.0, -20.0]


def test_each_rule_has_its_own_favourite() -> None:
    scores = choice_scores(CHOICES, SCORES, ALONE)
    assert scores.best("raw") == 0
    assert scores.best("per_character") == 3
    assert scores.per_character == pytest.approx([-2.0, -1.4, -1.05, -12.4 / 12])
    assert scores.per_byte == pytest.approx([-2.0, -0.7, -1.05, -12.4 / 12])
    assert scores.best("per_byte") == 1
    assert scores.minus_unconditional == pytest.approx([-1.0, -0.2, 0.6, 7.6])
    assert scores.right(3) == {"raw": False, "per_character": True, "per_byte": False, "minus_unconditional": True}


def test_without_unconditional() -> None:
    scores = choice_scores(CHOICES, SCORES)
    assert set(scores.right(0)) == {"raw", "per_character", "per_byte"}
    with pytest.raises(InvalidInputError, match="not measured"):
        scores.best("minus_unconditional")
    with pytest.raises(InvalidInputError, match="rule 'worst' is not known"):
        scores.best("worst")  # type: ignore[arg-type]


def test_ties_and_impossible_choices() -> None:
    assert choice_scores(["a", "b"], [-1, -1]).best("raw") == 0
    scores = choice_scores(["a", "b"], [-math.inf, -5], [-math.inf, -1])
    assert scores.best("minus_unconditional") == 1


@pytest.mark.parametrize(
    ("choices", "scores", "alone", "complaint"),
    [
        (["a"], [-1.0], None, "at least two choices"),
        (["a", " "], [-1.0, -1.0], None, "choice 1 is empty"),
        (["a", "b"], [-1.0], None, "2 choices need 2 log-likelihoods, got 1"),
        (["a", "b"], [-1.0, math.nan], None, "must be numbers"),
        (["a", "b"], [-1.0, -1.0], [-1.0], "2 unconditional"),
    ],
)
def test_refusals(choices: list[str], scores: list[float], alone: list[float] | None, complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        choice_scores(choices, scores, alone)


def test_no_such_choice() -> None:
    with pytest.raises(InvalidInputError, match="0 to 1, got 2"):
        choice_scores(["a", "b"], [-1, -2]).right(2)
