"""Preference pairs as a run reads them: drawn like other examples, two at a time, with what the reference thinks."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from circius.base.errors import CirciusError, InvalidInputError
from circius.model import Transformer
from circius.text import ChatTemplate
from circius.train.batch import Batch
from circius.train.dpo import Pair, PreferenceConfig, answer_lengths, pair_batch, pair_log_probs, preference_loss
from circius.train.example import Example
from circius.train.objective import Objective, Summed
from circius.train.packing import groups_that_fit
from circius.train.preferences import Preference, read_preferences
from circius.train.records import Problem, refuse
from circius.train.stream import Stream
from circius.train.too_long import TOLERATED, TooLong


@dataclass(frozen=True, eq=False)
class PairBatch:
    """batch: rows are chosen, rejected, chosen, rejected, ... reference: (pairs, 2), its log-probabilities."""

    batch: Batch
    reference: Tensor

    @classmethod
    def of(cls, judged: Sequence[tuple[Pair, Tensor]]) -> "PairBatch":
        """Some pairs, each with the reference's two log-probabilities."""
        return cls(pair_batch([pair for pair, _ in judged]), torch.stack([reference for _, reference in judged]))


class PairSource:
    """Pairs of answers, all encoded; `reference` (pairs, 2) must be given before any is drawn."""

    def __init__(self, name: str, pairs: Sequence[Pair]) -> None:
        self._name, self.pairs = name, list(pairs)
        self.reference = torch.empty(0, 2)

    @property
    def name(self) -> str:
        return self._name

    def __len__(self) -> int:
        return len(self.pairs)

    def n_tokens(self, index: int) -> int:
        return sum(map(len, self.pairs[index]))

    def example(self, index: int) -> Example:
        """The chosen answer; `judged` gives both."""
        return self.pairs[index][0]

    def judged(self, index: int) -> tuple[Pair, Tensor]:
        """A pair, and what the reference thinks of it."""
        assert len(self.reference) == len(self.pairs), "the reference's log-probabilities come first"
        return self.pairs[index], self.reference[index]


class PairStream(Stream):
    """A stream whose examples are pairs."""

    def __init__(
        self, sources: Sequence[PairSource], *, weights: Sequence[float] | None, batch_tokens: int, seed: int
    ) -> None:
        super().__init__(sources, weights=weights, batch_tokens=batch_tokens, seed=seed)
        self._pairs = list(sources)

    def next(self, n_batches: int, own: Sequence[int] | None = None) -> list[PairBatch]:  # type: ignore[override]
        drawn = [self._next_batch() for _ in range(n_batches)]
        wanted = range(n_batches) if own is None else own
        return [PairBatch.of([self._pairs[source].judged(index) for source, index in drawn[n]]) for n in wanted]


class PreferredAnswers(Objective[PairBatch]):
    """Direct preference optimisation, a pair at a time."""

    unit = "pair"

    def __init__(self, model: Transformer, config: PreferenceConfig) -> None:
        super().__init__(model)
        self._config = config

    def forward(self, batch: PairBatch) -> Summed:
        policy = pair_log_probs(self.model, batch.batch)
        n_tokens = answer_lengths(batch.batch).to(policy.device)
        loss = preference_loss(policy, batch.reference.to(policy.device), self._config, n_tokens=n_tokens)
        shown = {"loss": loss.total.detach(), "margin": loss.margin, "accuracy": loss.n_right}
        return Summed(loss.total, {**shown, "reward_chosen": loss.chosen, "reward_rejected": loss.rejected})

    def count(self, batch: PairBatch) -> int:
        return len(batch.reference)

    def lengths(self, batch: PairBatch) -> list[int]:
        return batch.batch.lengths


def read_pairs(
    files: Iterable[Path], template: ChatTemplate, *, seq_len: int, too_long: TooLong, name: str
) -> tuple[list[Pair], int]:
    """The pairs of some files, and how many were left out because an answer with its prompt is longer than `seq_len`.

    Raises:
        InvalidInputError: a file or a pair that is not valid, too many that are too long, or none that is left.
    """
    every = [_encoded(one, template) for file in files for one in read_preferences(file)]
    kept = [pair for pair in every if max(map(len, pair)) <= seq_len]
    n_dropped = len(every) - len(kept)
    if n_dropped > TOLERATED * len(every) and too_long != "drop":
        longest = max(len(example) for pair in every for example in pair)
        raise InvalidInputError(
            f"{name}: {n_dropped} of {len(every)} pairs have an answer that with its prompt is longer than {seq_len} "
            f"tokens, the longest {longest}: raise seq_len, or leave them out (too_long=drop)"
        )
    if not kept:
        raise InvalidInputError(f"{name}: no preference pair is in it that can be learnt from")
    return kept, n_dropped


def judged_once(source: PairSource, batch_tokens: int) -> Iterator[PairBatch]:
    """All pairs of a source in their order, in batches of at most that many tokens: for an evaluation.

    Raises:
        InvalidInputError: a pair is too long for a batch.
    """
    for own in groups_that_fit(source, batch_tokens):
        yield PairBatch.of([source.judged(index) for index in own])


def _encoded(preference: Preference, template: ChatTemplate) -> Pair:
    try:
        return preference.examples(template)
    except CirciusError as error:
        refuse(Problem(preference.place, str(error)))
