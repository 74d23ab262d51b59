"""What is asked of a model about one item of a benchmark, and what it answers. No torch here.

There are three kinds of question: how likely some continuations are (`Choices`), what comes after a prompt (`Text`),
and how likely a stretch of tokens is (`Passage`). A benchmark is made of nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from circius.base.errors import InvalidInputError


@dataclass(frozen=True, kw_only=True)
class Item:
    """One item of a benchmark.

    Attributes:
        id: unique in its benchmark, and the same in every run.
        doc: what the data set says about it.
        part: the subject or subset it belongs to, for averages over those; empty where there are none.
        cluster: what it shares with other items, such as a passage, so that they are not independent; or empty.
    """

    id: str
    doc: Any
    part: str = ""
    cluster: str = ""


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Asks how likely each continuation is after its context.

    Attributes:
        contexts: one for each continuation; most benchmarks have the same for all (`after`).
        continuations: with the space that joins them to their context.
        unconditional: a context that says nothing, after which they are asked for as well; None to leave that out.
    """

    contexts: tuple[str, ...]
    continuations: tuple[str, ...]
    unconditional: str | None = None

    def __post_init__(self) -> None:
        if not self.continuations or len(self.contexts) != len(self.continuations):
            raise InvalidInputError(
                f"choices need one context for each continuation, and at least one: got {len(self.contexts)} contexts "
                f"and {len(self.continuations)} continuations"
            )
        if not all(self.continuations):
            raise InvalidInputError(
                f"continuation {self.continuations.index('')} is empty: its likelihood says nothing"
            )

    @classmethod
    def after(cls, context: str, continuations: Sequence[str], unconditional: str | None = None) -> Self:
        """Several continuations of one context."""
        return cls(
            contexts=(context,) * len(continuations), continuations=tuple(continuations), unconditional=unconditional
        )


@dataclass(frozen=True, kw_only=True)
class Text:
    """Asks for what comes after a prompt: greedily, or `n` samples.

    Attributes:
        stop: texts that end an answer; they are not part of it.
        seed: of the samples; the runner derives it from the task and the item.
    """

    prompt: str
    stop: tuple[str, ...] = ()
    max_tokens: int
    n: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.n > 1 and self.temperature == 0:
            raise InvalidInputError(f"{self.n} greedy samples would all be the same: give a temperature above 0")

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0


@dataclass(frozen=True, kw_only=True)
class Passage:
    """Asks how likely all of these tokens are but the first `n_known`, which they are predicted from."""

    ids: tuple[int, ...]
    n_known: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.n_known < len(self.ids):
            raise InvalidInputError(
                f"a passage of {len(self.ids)} tokens can have 1 to {len(self.ids) - 1} known ones, got {self.n_known}"
            )


Ask = Choices | Text | Passage


@dataclass(frozen=True, kw_only=True)
class ChoicesAnswer:
    """Natural log-probabilities, one for each continuation: the sum over its tokens.

    Attributes:
        is_greedy: whether each continuation is what the model would have written itself.
        unconditional: the same sums after the context that says nothing; None if they were not asked for.
        context_ids, continuation_ids: the tokens; empty where only the server knows them.
        n_cut: tokens left out after the beginning of the contexts, because the model's context is too short.
    """

    logprobs: tuple[float, ...]
    is_greedy: tuple[bool, ...]
    unconditional: tuple[float, ...] | None = None
    context_ids: tuple[tuple[int, ...], ...] = ()
    continuation_ids: tuple[tuple[int, ...], ...] = ()
    n_cut: int = 0


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One answer to a prompt. `logprob` is the sum over its tokens, None where it is unknown; `finish` is "stop" or
    "length"."""

    text: str
    ids: tuple[int, ...] = ()
    logprob: float | None = None
    finish: str = "stop"


@dataclass(frozen=True, kw_only=True)
class TextAnswer:
    """The samples, and the tokens of the prompt where they are known; `n_cut` as in `ChoicesAnswer`."""

    samples: tuple[Sample, ...]
    prompt_ids: tuple[int, ...] = ()
    n_cut: int = 0

    @property
    def text(self) -> str:
        """Of the only sample."""
        (sample,) = self.samples
        return sample.text


def text_of(answers: Sequence["Answer"]) -> str:
    """Of the only answer, which is the only sample: for tasks that ask for one greedy text."""
    (answer,) = answers
    assert isinstance(answer, TextAnswer)
    return answer.text


@dataclass(frozen=True, kw_only=True)
class PassageAnswer:
    """The sum of the log-probabilities of the tokens that were not known, and of their squares, for an interval."""

    logprob: float
    squares: float
    n_tokens: int


Answer = ChoicesAnswer | TextAnswer | PassageAnswer
