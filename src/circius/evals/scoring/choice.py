"""Which of several continuations a model prefers, by the four rules in use."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from circius.base.errors import InvalidInputError

Rule = Literal["raw", "per_character", "per_byte", "minus_unconditional"]
RULES: tuple[Rule, ...] = get_args(Rule)


@dataclass(frozen=True, kw_only=True)
class ChoiceScores:
    """The scores of one item's choices by each rule; higher is better.

    Attributes:
        raw: the log-likelihood of the whole continuation.
        per_character: that, divided by the number of characters of the choice; lm-eval's `acc_norm`, LLaMA-1's rule.
        per_byte: that, divided by the number of its UTF-8 bytes.
        minus_unconditional: that, minus the log-likelihood after a context that says nothing, such as "Answer:"
            (LLaMA-1's rule for OpenBookQA and BoolQ, after Brown et al.); None where it was not asked for.
    """

    raw: tuple[float, ...]
    per_character: tuple[float, ...]
    per_byte: tuple[float, ...]
    minus_unconditional: tuple[float, ...] | None = None

    def scores(self, rule: Rule) -> tuple[float, ...]:
        """The scores by one rule.

        Raises:
            InvalidInputError: the rule is not known, or was not asked for.
        """
        if rule not in RULES:
            raise InvalidInputError(f"rule {rule!r} is not known: use {', '.join(RULES)}")
        scores: tuple[float, ...] | None = getattr(self, rule)
        if scores is None:
            raise InvalidInputError("minus_unconditional was not measured: ask for unconditional log-likelihoods too")
        return scores

    def best(self, rule: Rule) -> int:
        """The place of the choice with the highest score; the first of those that tie."""
        scores = self.scores(rule)
        return scores.index(max(scores))

    def right(self, gold: int) -> dict[Rule, bool]:
        """Whether each measured rule takes the choice at place `gold`.

        Raises:
            InvalidInputError: there is no such choice.
        """
        if not 0 <= gold < len(self.raw):
            raise InvalidInputError(f"the right choice must be 0 to {len(self.raw) - 1}, got {gold}")
        return {rule: self.best(rule) == gold for rule in RULES if getattr(self, rule) is not None}


def choice_scores(
    choices: Sequence[str], loglikelihoods: Sequence[float], unconditional: Sequence[float] | None = None
) -> ChoiceScores:
    """The scores of one item's choices by all four rules.

    choices: the texts of the choices as they were asked. The length that divides is theirs without the one space that
        joins them to their context, as lm-eval counts. A quarter of HellaSwag's endings have another space behind that
        one, where a mark was cleaned away; it counts.
    loglikelihoods: the sum of the log-probabilities of each choice's tokens, natural logarithm.
    unconditional: the same after a context that says nothing.

    >>> choice_scores([" it", "  it"], [-6.0, -6.0]).per_character
    (-3.0, -2.0)

    Raises:
        InvalidInputError: fewer than two choices, an empty one, numbers that do not go with them, or NaN.
    """
    if len(choices) < 2:
        raise InvalidInputError(f"an item needs at least two choices, got {len(choices)}")
    texts = [choice.removeprefix(" ") for choice in choices]
    for place, text in enumerate(texts):
        if not text.strip():
            raise InvalidInputError(f"choice {place} is empty: its likelihood says nothing")
    raw = _checked(loglikelihoods, len(texts), "log-likelihoods")
    without = None if unconditional is None else _checked(unconditional, len(texts), "unconditional log-likelihoods")
    return ChoiceScores(
        raw=raw,
        per_character=tuple(score / len(text) for score, text in zip(raw, texts, strict=True)),
        per_byte=tuple(score / len(text.encode()) for score, text in zip(raw, texts, strict=True)),
        minus_unconditional=None if without is None else tuple(map(_minus, raw, without)),
    )


def _minus(conditional: float, unconditional: float) -> float:
    """The difference; a choice that is impossible in its context stays so, even where -inf - -inf would be NaN."""
    return conditional if math.isinf(conditional) else conditional - unconditional


def _checked(scores: Sequence[float], n: int, name: str) -> tuple[float, ...]:
    if len(scores) != n:
        raise InvalidInputError(f"{n} choices need {n} {name}, got {len(scores)}")
    if any(math.isnan(score) for score in scores):
        raise InvalidInputError(f"{name} must be numbers, got {list(scores)}")
    return tuple(float(score) for score in scores)
