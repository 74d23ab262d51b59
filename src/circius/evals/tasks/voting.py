"""Greedy answers and samples that vote: what GSM8K and MATH have in common."""

from collections.abc import Callable, Sequence

from circius.evals.item import Answer, Text, TextAnswer
from circius.evals.scoring.vote import Same, majority
from circius.evals.task import Judged
from circius.evals.tasks.settings import TEMPERATURE, TOP_P, Settings

Extract = Callable[[str], str | None]


def n_samples(settings: Settings, protocol: int) -> int:
    return protocol if settings.samples is None else settings.samples


def primary_of(n: int) -> str:
    """The metric that counts: the vote, or the greedy answer where there is none.

    >>> primary_of(8), primary_of(0), primary_of(1)
    ('maj@8', 'maj@1', 'maj@1')
    """
    return f"maj@{max(n, 1)}"


def asked(prompt: str, *, stop: tuple[str, ...], max_tokens: int, n: int, settings: Settings) -> tuple[Text, ...]:
    """The greedy answer, and `n` samples if there are to be at least two."""
    greedy = Text(prompt=prompt, stop=stop, max_tokens=max_tokens)
    if n < 2:
        return (greedy,)
    drawn = Text(
        prompt=prompt,
        stop=stop,
        max_tokens=max_tokens,
        n=n,
        temperature=TEMPERATURE if settings.temperature is None else settings.temperature,
        top_p=TOP_P if settings.top_p is None else settings.top_p,
    )
    return greedy, drawn


def judge_votes(answers: Sequence[Answer], gold: str, *, extract: Extract, same: Same) -> Judged:
    """maj@1 of the greedy answer; of n samples maj@n and their mean. What cannot be read does not vote."""
    greedy, *drawn = answers
    assert isinstance(greedy, TextAnswer)
    own = extract(greedy.text)
    values = {"maj@1": _is_right(own, gold, same)}
    said: dict[str, object] = {"maj@1": own}
    for answer in drawn:
        assert isinstance(answer, TextAnswer)
        found = [extract(sample.text) for sample in answer.samples]
        logprobs = [sample.logprob for sample in answer.samples]
        known = [logprob for logprob in logprobs if logprob is not None]
        vote = majority(found, known if len(known) == len(found) else None, same=same)
        n = len(found)
        values[f"maj@{n}"] = _is_right(vote.answer, gold, same)
        values[f"mean@{n}"] = sum(_is_right(one, gold, same) for one in found) / n
        said |= {f"maj@{n}": vote.answer, "samples": found}
    return Judged(values=values, said=said, gold=gold)


def _is_right(given: str | None, gold: str, same: Same) -> float:
    return float(given is not None and (given == gold or same(given, gold)))
