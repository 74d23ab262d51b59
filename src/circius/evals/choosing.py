"""What benchmarks with choices have in common: the four scores, and which of them counts."""

from collections.abc import Sequence

from circius.evals.item import Answer, ChoicesAnswer
from circius.evals.scoring.choice import RULES, ChoiceScores, Rule, choice_scores
from circius.evals.task import Judged

SAYS_NOTHING = "Answer:"
"""The context of unconditional likelihoods, after LLaMA-1 and Brown et al."""


def judge_choice(answer: Answer, continuations: Sequence[str], gold: int, *, rule: Rule, prefix: str = "") -> Judged:
    """Whether each rule takes the right choice; `said` is the place of the one that `rule` takes."""
    assert isinstance(answer, ChoicesAnswer)
    scores = four_scores(continuations, answer)
    right = scores.right(gold)
    values = {f"{prefix}{name}": float(right[name]) for name in RULES if name in right}
    return Judged(values=values, said={f"{prefix}{rule}": scores.best(rule)}, gold=gold)


def four_scores(continuations: Sequence[str], answer: ChoicesAnswer) -> ChoiceScores:
    """The scores, with lengths as lm-eval counts them: without the one space that joins a choice to its context.

    A quarter of HellaSwag's endings have another space behind that one, where a mark was cleaned away; it counts.

    >>> answer = ChoicesAnswer(logprobs=(-6.0, -6.0), is_greedy=(False, False))
    >>> four_scores([" it", "  it"], answer).per_character
    (-3.0, -2.0)
    """
    plain = choice_scores(continuations, answer.logprobs, answer.unconditional)
    choices = [own.removeprefix(" ") for own in continuations]
    return ChoiceScores(
        raw=plain.raw,
        per_character=tuple(score / len(own) for score, own in zip(plain.raw, choices, strict=True)),
        per_byte=tuple(score / len(own.encode()) for score, own in zip(plain.raw, choices, strict=True)),
        minus_unconditional=plain.minus_unconditional,
    )


def joined(*judged: Judged) -> Judged:
    """Several judgements on one item as one; they agree on what is right."""
    values = {name: value for one in judged for name, value in one.values.items()}
    said = {name: value for one in judged for name, value in (one.said or {}).items()}
    return Judged(values=values, said=said, gold=judged[0].gold)
