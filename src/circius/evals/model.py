"""What answers the questions of a benchmark: a model of ours, or any server that speaks OpenAI's protocol."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from circius.evals.item import (
    Answer,
    Ask,
    Choices,
    ChoicesAnswer,
    Passage,
    PassageAnswer,
    Text,
    TextAnswer,
)

OnAnswered = Callable[[float], object]
"""Called now and then with the share of the questions that have been answered, from 0 to 1."""


def unheard(share: float) -> None:
    """For those who do not watch."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """How a model makes tokens of texts, for what is measured by the token.

    Attributes:
        encode: the tokens of a text, without BOS.
        start: what stands before a text that is scored from its first token on; None if there is nothing.
        adds_bos: whether prompts begin with `start`, which is then BOS.
        context: the most tokens that the model takes at once.
    """

    encode: Callable[[str], Sequence[int]]
    start: int | None
    adds_bos: bool
    context: int


class Model(Protocol):
    """The same questions in the same order give the same answers; from our engine, to the last digit."""

    @property
    def tokens(self) -> Tokens | None:
        """None if they are the server's secret."""
        ...

    @property
    def n_at_once(self) -> int:
        """How many answers are written at the same time."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """What tells this model from others, for the record of a run: JSON values."""
        ...

    def loglikelihoods(self, asks: Sequence[Choices], on_answered: OnAnswered = unheard) -> list[ChoicesAnswer]: ...

    def texts(self, asks: Sequence[Text], on_answered: OnAnswered = unheard) -> list[TextAnswer]: ...

    def passages(self, asks: Sequence[Passage], on_answered: OnAnswered = unheard) -> list[PassageAnswer]: ...


def answer_all(model: Model, asks: Sequence[Ask], on_answered: OnAnswered = unheard) -> list[Answer]:
    """The answers in the order of the questions; questions of one kind are answered together."""
    answers: list[Answer | None] = [None] * len(asks)
    n_done = 0

    def heard(n: int) -> OnAnswered:
        return lambda share: on_answered((n_done + share * n) / len(asks))

    choices = [(place, ask) for place, ask in enumerate(asks) if isinstance(ask, Choices)]
    if choices:
        for (place, _), own in zip(
            choices, model.loglikelihoods([ask for _, ask in choices], heard(len(choices))), strict=True
        ):
            answers[place] = own
        n_done += len(choices)
    texts = [(place, ask) for place, ask in enumerate(asks) if isinstance(ask, Text)]
    if texts:
        for (place, _), text in zip(texts, model.texts([ask for _, ask in texts], heard(len(texts))), strict=True):
            answers[place] = text
        n_done += len(texts)
    passages = [(place, ask) for place, ask in enumerate(asks) if isinstance(ask, Passage)]
    if passages:
        for (place, _), passage in zip(
            passages, model.passages([ask for _, ask in passages], heard(len(passages))), strict=True
        ):
            answers[place] = passage
    return [answer for answer in answers if answer is not None]
