"""Picking tokens on the CPU: each row by itself, and after a first look only at the tokens that can still be drawn."""

import math
from collections.abc import Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt
from torch import Tensor

from circius.engine.params import SamplingParams
from circius.engine.sampling import BAD_ROW, SamplerRow

Scores = npt.NDArray[np.float32]
"""(V,), the largest 0 once they are shifted."""
Tokens = npt.NDArray[np.int64]
_BLOCK = 256
_HOPELESS = np.float32(30)
"""Tokens that are e^30 times less likely than the likeliest may be left out. A whole vocabulary of them has less than a
part in 10^8 together, which is less than float32 makes of the others; at low temperatures nearly all tokens are."""


class HostSampler:
    """A `Sampler` for logits in the CPU's memory. What a row draws cannot depend on the others."""

    def __init__(self, rows: Sequence[SamplerRow], *, vocab_size: int) -> None:
        with infinite_is_fine():
            self._rows = [HostRow(row, vocab_size) for row in rows]

    def __call__(self, logits: Tensor, drafts: Sequence[Sequence[int]]) -> list[list[int]]:
        places = iter(logits.float().cpu().numpy())
        with infinite_is_fine():
            return [
                row.take(draft, list(islice(places, len(draft) + 1)))
                for row, draft in zip(self._rows, drafts, strict=True)
            ]

    def keep(self, places: Sequence[int]) -> None:
        self._rows = [self._rows[place] for place in places]


def infinite_is_fine() -> np.errstate:
    """A bias can be so large that a score becomes infinite; that is looked at, and no reason for a warning."""
    return np.errstate(over="ignore", invalid="ignore")


class HostRow:
    """Picks the tokens of one row."""

    def __init__(self, row: SamplerRow, vocab_size: int) -> None:
        self._params = row.params
        self._random = row.generator()
        self._n_taken = 0
        self._end_ids = list(row.end_ids)
        self._constraint = row.constraint
        bias = row.params.logit_bias or {}
        self._bias = np.array(list(bias), np.int64), np.array(list(bias.values()), np.float32)
        self._counts = _Counts(row, vocab_size) if row.params.has_penalties else None

    def take(self, draft: Sequence[int], places: Sequence[Scores]) -> list[int]:
        """As much of the draft as is drawn there, and the token drawn behind that, or `BAD_ROW`.

        places: the logits (V,) behind the last known token, then behind each drafted one.
        """
        taken: list[int] = []
        for expected, logits in zip([*draft, None], places, strict=True):
            taken.append(self._next(logits))
            if taken[-1] != expected:
                break
        return taken

    def _next(self, logits: Scores) -> int:
        scores = self._adjusted(logits)
        likeliest = int(scores.argmax())  # the first NaN, if there is one
        if not math.isfinite(scores[likeliest]):
            return BAD_ROW
        token = likeliest if self._params.is_greedy else self._drawn(scores, scores[likeliest])
        self._n_taken += 1
        if self._constraint is not None:
            self._constraint.accept(token)
        if self._counts is not None:
            self._counts.add(token)
        return token

    def _drawn(self, scores: Scores, best: np.float32) -> int:
        temperature = np.float32(self._params.temperature)
        possible = scores >= best - _HOPELESS * temperature
        if np.count_nonzero(possible) > len(scores) // 4:
            return draw((scores - best) / temperature, self._params, self._random.random())
        tokens = np.flatnonzero(possible)
        return int(tokens[draw((scores[tokens] - best) / temperature, self._params, self._random.random())])

    def _adjusted(self, logits: Scores) -> Scores:
        """The scores after bias, penalties and min_tokens, each of which touches few tokens, and after the form."""
        p = self._params
        forbids_ends = self._n_taken < p.min_tokens and self._end_ids
        if not (p.logit_bias or self._counts or forbids_ends or self._constraint):
            return logits
        scores = logits.copy()
        if p.logit_bias:
            tokens, values = self._bias
            scores[tokens] += values
        if self._counts is not None:
            self._counts.penalise(scores, p)
        if forbids_ends:
            scores[self._end_ids] = -math.inf
        if self._constraint is not None:
            bits = np.frombuffer(self._constraint.allowed(), np.uint8)
            scores[np.unpackbits(bits, count=len(scores), bitorder="little") == 0] = -math.inf
        return scores


class _Counts:
    """How often each token stands in the answer, and which stand in the answer or the prompt."""

    def __init__(self, row: SamplerRow, vocab_size: int) -> None:
        self._in_answer = np.zeros(vocab_size, np.float32)
        self._is_seen = np.zeros(vocab_size, np.bool_)
        self._is_seen[list(set(row.prompt_ids))] = True

    def add(self, token: int) -> None:
        self._in_answer[token] += 1
        self._is_seen[token] = True

    def penalise(self, scores: Scores, params: SamplingParams) -> None:
        """Repetition over prompt and answer (Hugging Face's rule), then frequency and presence over the answer."""
        tokens = np.flatnonzero(self._is_seen)
        own, counts = scores[tokens], self._in_answer[tokens]
        repetition = np.float32(params.repetition_penalty)
        own = np.where(own > 0, own / repetition, own * repetition)
        own = own - np.float32(params.frequency_penalty) * counts
        scores[tokens] = own - np.float32(params.presence_penalty) * (counts > 0)


def draw(scores: Scores, params: SamplingParams, uniform: float) -> int:
    """One token from the distribution of `scores`, of which the largest is 0, after the cuts of `params`."""
    if params.min_p == 0 and not 0 < params.top_k < len(scores) and params.top_p == 1:
        return _invert(np.exp(scores), uniform)
    tokens, scores = shortlist(scores, params)
    return int(tokens[_invert(np.exp(scores), uniform)])


def shortlist(scores: Scores, params: SamplingParams) -> tuple[Tokens, Scores]:
    """The tokens that min_p, top_k and top_p leave, ascending, and their scores. The largest of all scores is 0."""
    tokens: Tokens | None = None
    if params.min_p > 0:
        tokens = np.flatnonzero(scores >= np.log(np.float32(params.min_p)))
        scores = scores[tokens]
    if 0 < params.top_k < len(scores):
        kth = np.partition(scores, -params.top_k)[-params.top_k]
        tokens, scores = _narrowed(tokens, scores, scores >= kth)
    if params.top_p < 1:
        weights = np.exp(scores)
        total = weights.sum(dtype=np.float64)
        # All the tokens below this floor together weigh half of what may be missing at most: they need not be sorted.
        floor = 0.5 * (1 - params.top_p) * total / len(scores)
        tokens, scores = _narrowed(tokens, scores, weights >= floor)
        tokens, scores = _narrowed(tokens, scores, scores >= _border(scores, params.top_p * total))
    assert tokens is not None
    return tokens, scores


def _narrowed(tokens: Tokens | None, scores: Scores, is_kept: npt.NDArray[np.bool_]) -> tuple[Tokens, Scores]:
    kept = np.flatnonzero(is_kept)
    return kept if tokens is None else tokens[kept], scores[kept]


def _border(scores: Scores, weight: float) -> np.float32:
    """The score of the last of the fewest likeliest tokens that together have this weight."""
    ordered = np.sort(scores)[::-1]
    weights = np.exp(ordered)
    before = weights.cumsum(dtype=np.float64) - weights
    n_kept = max(1, int(np.count_nonzero(before < weight)))
    border: np.float32 = ordered[n_kept - 1]
    return border


def _invert(weights: Scores, uniform: float) -> int:
    """The place at which the cumulative sum of `weights` passes `uniform`, in [0, 1), of its total."""
    # A block is added up singly only if the number falls into it: one long cumulative sum would take most of a draw.
    blocks = np.add.reduceat(weights, np.arange(0, len(weights), _BLOCK), dtype=np.float64).cumsum()
    target = uniform * blocks[-1]
    block = _passing(blocks, target)
    before = blocks[block - 1] if block else 0.0
    begin = block * _BLOCK
    return begin + _passing(weights[begin : begin + _BLOCK].cumsum(dtype=np.float64), target - before)


def _passing(cumulative: npt.NDArray[np.float64], target: float) -> int:
    # Rounding must not lift the target onto the last sum, behind the last place that has any weight.
    below = cumulative[-1] * (1 - np.finfo(np.float64).eps)
    return int(cumulative.searchsorted(min(target, below), side="right"))
