"""What benchmarks with choices have in common: the four scores, and which of them counts."""

from collections.abc import Sequence

from circius.evals.item import Answer, ChoicesAnswer
from circius.evals.scoring.choice import RULES, Rule, choice_scores
from circius.evals.task import Judged

SAYS_NOTHING = "Answer:"
"""The context of unconditional likelihoods, after LLaMA-1 and Brown et al."""


def judge_choice(answer: Answer, continuations: Sequence[str], gold: int, *, rule: Rule, prefix: str = "") -> Judged:
    """Whether each rule takes the right choice; `said` is the place of the one that `rule` takes."""
    assert isinstance(answer, ChoicesAnswer)
    scores = choice_scores(continuations, answer.logprobs, answer.unconditional)
    right = scores.right(gold)
    values = {f"{prefix}{name}": float(right[name]) for name in RULES if name in right}
    return Judged(values=values, said={f"{prefix}{rule}": scores.best(rule)}, gold=gold)


def joined(*judged: Judged) -> Judged:
    """Several judgements on one item as one; they agree on what is right."""
    values = {name: value for one in judged for name, value in one.values.items()}
    said = {name: value for one in judged for name, value in (one.said or {}).items()}
    return Judged(values=values, said=said, gold=judged[0].gold)
