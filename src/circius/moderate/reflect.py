"""Self-reflection: what the model itself thinks of a prompt or an answer (section 5.2 of the paper).

The model is asked for the category of a text. What it would answer is read from its probabilities where the answer
begins, not from a text that it writes: the score is a number between 0 and 1 with which one can draw a curve, and no
wording of an answer is ever searched for words.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from circius.base.errors import ContextOverflowError, InvalidInputError
from circius.moderate.answers import AnswerTree, Path
from circius.moderate.categories import ACCEPTABLE, NOT_MODERATED, Category
from circius.moderate.instruction import KINDS, Kind, instruction
from circius.text import ChatTemplate, Message

NextLogprobs = Callable[[Sequence[Sequence[int]], Sequence[Sequence[int]]], Sequence[Sequence[float]]]
"""Given prompts as ids, and for each of them some tokens: the log-probabilities with which these come next."""

NEGLIGIBLE = 1e-3
"""A second fork is asked about only if so much of the probability reaches it; less is divided evenly."""
OVERLAP = 0.1
"""The share of a piece that stands in its neighbour too, so that nothing hides in a cut."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the model thinks of one text.

    scores: the probability of each category, by key, and of `not_moderated`; they add up to 1. coverage: how much of
    the model's probability lay on the names of categories at all; near 0 it did not understand the question, and the
    scores say little. n_pieces: in how many pieces a long text was judged; the scores are those of the worst.
    """

    scores: Mapping[str, float]
    coverage: float
    n_pieces: int = 1

    @property
    def acceptable(self) -> float:
        """The probability that no category applies."""
        return self.scores[NOT_MODERATED]

    @property
    def unsafe(self) -> float:
        """The probability that one does."""
        return 1.0 - self.acceptable

    @property
    def category(self) -> str:
        """The likeliest category, `not_moderated` among them."""
        return max(self.scores, key=lambda key: self.scores[key])

    @property
    def unsafe_category(self) -> str:
        """The likeliest of those that apply."""
        return max((key for key in self.scores if key != NOT_MODERATED), key=lambda key: self.scores[key])


class Reflector:
    """Asks a model for the categories of texts.

    template: that of the model; it is used in its escaping form whatever it does otherwise, so that no text can pass
    for a turn. context: the most tokens that the model reads.
    """

    def __init__(
        self, template: ChatTemplate, categories: Sequence[Category], next_logprobs: NextLogprobs, *, context: int
    ) -> None:
        self.categories = tuple(categories)
        self._template = template.escaping()
        self._next_logprobs = next_logprobs
        names = {each.key: each.name for each in self.categories}
        self.tree = AnswerTree(self._template, {**names, NOT_MODERATED: ACCEPTABLE.name})
        self._most = context - self.tree.depth
        n_least = len(self._ids("", "answer"))
        if n_least >= self._most:
            raise ContextOverflowError(
                f"asking for one of {len(self.categories)} categories takes {n_least} tokens before any text, and the "
                f"context is {context}: give a larger context, or the short list of categories"
            )

    def asking(self, next_logprobs: NextLogprobs) -> "Reflector":
        """The same one, by another way to ask the same model."""
        own = copy.copy(self)
        own._next_logprobs = next_logprobs
        return own

    def verdicts(self, texts: Sequence[str], *, kind: Kind = "prompt") -> list[Verdict]:
        """What the model thinks of each text, all of them computed together.

        Raises:
            InvalidInputError: `kind` is not one.
            PromptError: a text that the tokenizer cannot encode.
        """
        if kind not in KINDS:
            raise InvalidInputError(f"kind {kind!r} is not known: use {' or '.join(KINDS)}")
        pieces = [self._pieces(text, kind) for text in texts]
        judged = iter(self._judge([ids for own in pieces for ids in own]))
        return [_worst([next(judged) for _ in own]) for own in pieces]

    def _ids(self, text: str, kind: Kind) -> list[int]:
        return self._template.encode([Message("user", instruction(text, self.categories, kind=kind))])

    def _pieces(self, text: str, kind: Kind) -> list[list[int]]:
        """The prompt about a text, or several about its parts if it is too long for one."""
        ids = self._ids(text, kind)
        if len(ids) <= self._most:
            return [ids]
        if len(text) < 2:
            raise ContextOverflowError(
                f"not even one character fits behind the question for a category: it takes {len(ids)} of {self._most} "
                "tokens; give a larger context"
            )
        middle, overlap = len(text) // 2, min(int(len(text) * OVERLAP), len(text) // 2 - 1)
        return [
            *self._pieces(text[: middle + overlap], kind),
            *self._pieces(text[middle - overlap :], kind),
        ]

    def _judge(self, prompts: Sequence[Sequence[int]]) -> list[Verdict]:
        tree = self.tree
        first = tree.forks[()]
        known: list[dict[Path, dict[int, float]]] = [
            {(): found} for found in self._ask(prompts, [first] * len(prompts))
        ]
        later = [
            (place, path)
            for place, own in enumerate(known)
            for path in tree.forks
            if path and _share_of(own[()], path[0]) >= NEGLIGIBLE
        ]
        further = [[*prompts[place], *path] for place, path in later]
        for (place, path), found in zip(
            later, self._ask(further, [tree.forks[path] for _, path in later]), strict=True
        ):
            known[place][path] = found
        return [Verdict(scores=tree.shares(own), coverage=min(math.fsum(own[()].values()), 1.0)) for own in known]

    def _ask(self, prompts: Sequence[Sequence[int]], tokens: Sequence[Sequence[int]]) -> list[dict[int, float]]:
        """The probabilities of the tokens after each prompt."""
        if not prompts:
            return []
        found = self._next_logprobs(prompts, tokens)
        return [
            {token: math.exp(logprob) for token, logprob in zip(ids, logprobs, strict=True)}
            for ids, logprobs in zip(tokens, found, strict=True)
        ]


def _share_of(at: Mapping[int, float], token: int) -> float:
    total = math.fsum(at.values())
    return at[token] / total if total > 0 else 0.0


def _worst(verdicts: Sequence[Verdict]) -> Verdict:
    return replace(min(verdicts, key=lambda verdict: verdict.acceptable), n_pieces=len(verdicts))
