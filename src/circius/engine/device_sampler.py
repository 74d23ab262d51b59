"""Picking tokens on a device: all places of all rows at once, and the host waits only for the result."""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from random import Random

import torch
from torch import Tensor

from circius.engine.params import SamplingParams
from circius.engine.sampling import BAD_ROW, SamplerRow


class Places:
    """The places of a step: which row each belongs to, and which drafted tokens stand before it."""

    def __init__(self, drafts: Sequence[Sequence[int]], device: torch.device) -> None:
        self.drafts = drafts
        self.rows = [row for row, draft in enumerate(drafts) for _ in range(len(draft) + 1)]
        self.depths = [depth for draft in drafts for depth in range(len(draft) + 1)]
        self._index = torch.tensor(self.rows, device=device) if any(drafts) else None

    def spread(self, of_rows: Tensor) -> Tensor:
        """A value for each row as one for each place."""
        return of_rows if self._index is None else of_rows[self._index]


class DeviceSampler:
    """A `Sampler` for logits on any device; a stage that no row uses costs nothing."""

    def __init__(self, rows: Sequence[SamplerRow], *, vocab_size: int, device: torch.device | str) -> None:
        self._device = torch.device(device)
        self._vocab_size = vocab_size
        self._uniform = [_Uniform(row.generator()) for row in rows]
        self._n_taken = [0] * len(rows)
        self._counts = _Counts(rows, vocab_size, self._device) if any(r.params.has_penalties for r in rows) else None
        self._set_rows(list(rows))

    def keep(self, places: Sequence[int]) -> None:
        self._uniform = [self._uniform[place] for place in places]
        self._n_taken = [self._n_taken[place] for place in places]
        if self._counts is not None:
            self._counts.keep(places)
        self._set_rows([self._rows[place] for place in places])

    def __call__(self, logits: Tensor, drafts: Sequence[Sequence[int]]) -> list[list[int]]:
        places = Places(drafts, self._device)
        drawn = iter(self._draw_all(logits, places).tolist())  # the one place where the host waits for the device
        taken = [_as_far_as_right(draft, [next(drawn) for _ in range(len(draft) + 1)]) for draft in drafts]
        for row, tokens in enumerate(taken):
            self._n_taken[row] += len(tokens)
            self._uniform[row].drop(len(tokens))
        if self._counts is not None:
            self._counts.add(taken)
        return taken

    def _set_rows(self, rows: list[SamplerRow]) -> None:
        self._rows = rows
        params = [row.params for row in rows]
        self._score_stages: list[Callable[[Tensor, Places], Tensor]] = []
        if any(p.logit_bias for p in params):
            self._score_stages.append(_Bias(params, self._vocab_size, self._device))
        if self._counts is not None and any(p.has_penalties for p in params):
            self._score_stages.append(_Penalties(params, self._counts, self._device))
        if any(row.params.min_tokens and row.end_ids for row in rows):
            self._score_stages.append(self._forbid_ends)
        self._any_random = not all(p.is_greedy for p in params)
        self._greedy = self._tensor([p.is_greedy for p in params]) if any(p.is_greedy for p in params) else None
        # A greedy row in a mixed batch takes part in the draw with harmless values; its draw is not used.
        wanted = [SamplingParams() if p.is_greedy else p for p in params]
        self._temperature = self._column([p.temperature for p in wanted], neutral=1.0)
        self._min_p = self._column([p.min_p for p in wanted], neutral=0.0)
        self._top_p = self._column([p.top_p for p in wanted], neutral=1.0)
        all_tokens = self._vocab_size
        top_k = [p.top_k if 0 < p.top_k < all_tokens else all_tokens for p in wanted]
        self._top_k = self._column(top_k, neutral=all_tokens)
        self._largest_top_k = max((k for k in top_k if k < all_tokens), default=0)

    def _draw_all(self, logits: Tensor, places: Places) -> Tensor:
        scores = logits.float()
        for stage in self._score_stages:
            scores = stage(scores, places)
        best, tokens = scores.max(dim=-1)
        if self._any_random:
            drawn = self._draw(scores - best[:, None], places)
            tokens = drawn if self._greedy is None else torch.where(places.spread(self._greedy), tokens, drawn)
        return torch.where(best.isfinite(), tokens, BAD_ROW)

    def _draw(self, scores: Tensor, places: Places) -> Tensor:
        """One token a place from the distribution of `scores`, whose largest is 0 at each place."""
        if self._temperature is not None:
            scores = scores / places.spread(self._temperature)
        if self._min_p is not None:
            scores = cut_min_p(scores, places.spread(self._min_p))
        if self._top_k is not None:
            scores = cut_top_k(scores, places.spread(self._top_k), largest=self._largest_top_k)
        if self._top_p is not None:
            scores = cut_top_p(scores, places.spread(self._top_p))
        at = zip(places.rows, places.depths, strict=True)
        return invert(scores, self._tensor([self._uniform[row].ahead(depth) for row, depth in at]))

    def _forbid_ends(self, scores: Tensor, places: Places) -> Tensor:
        at = [
            (place, token)
            for place, (row, depth) in enumerate(zip(places.rows, places.depths, strict=True))
            if self._n_taken[row] + depth < self._rows[row].params.min_tokens
            for token in self._rows[row].end_ids
        ]
        if not at:
            return scores
        index = self._tensor(at)
        return scores.index_put((index[:, 0], index[:, 1]), scores.new_tensor(-math.inf))

    def _tensor(self, values: Sequence[object]) -> Tensor:
        # MPS has no float64; a uniform number in float32 is enough there.
        dtype = torch.float32 if self._device.type == "mps" else torch.float64
        is_real = bool(values) and isinstance(values[0], float)
        return torch.tensor(values, device=self._device, dtype=dtype if is_real else None)

    def _column(self, values: Sequence[float], *, neutral: float) -> Tensor | None:
        """`values` as (B, 1), or None if no row departs from the neutral one."""
        if all(value == neutral for value in values):
            return None
        dtype = torch.int64 if isinstance(neutral, int) else torch.float32
        return torch.tensor(values, device=self._device, dtype=dtype)[:, None]


def cut_min_p(scores: Tensor, min_p: Tensor) -> Tensor:
    """`scores` (N, V) with -inf for every token less than `min_p` (N, 1) times as likely as the likeliest."""
    return scores.masked_fill(scores < scores.amax(dim=-1, keepdim=True) + min_p.log(), -math.inf)


def cut_top_k(scores: Tensor, top_k: Tensor, *, largest: int) -> Tensor:
    """`scores` (N, V) with -inf for all but the `top_k` (N, 1) likeliest tokens and those that tie with the last.

    A row with V or more keeps all. largest: the largest of the others, known on the host without asking the device.
    """
    limited = top_k < scores.shape[-1]
    # Rows without a limit look at place 0 of the short list and then ignore it.
    kth = scores.topk(largest, dim=-1).values.gather(-1, torch.where(limited, top_k, 1) - 1)
    return scores.masked_fill((scores < kth) & limited, -math.inf)


def cut_top_p(scores: Tensor, top_p: Tensor) -> Tensor:
    """`scores` (N, V) with -inf for all but the fewest likeliest tokens that together hold `top_p` (N, 1).

    Those that tie with the last of them stay too, so that the order in which a sort leaves equals never shows.
    """
    likeliest = scores.sort(dim=-1, descending=True).values
    probabilities = (likeliest - scores.logsumexp(dim=-1, keepdim=True)).exp()
    n_kept = (probabilities.cumsum(dim=-1) - probabilities < top_p).sum(dim=-1, keepdim=True).clamp(min=1)
    return scores.masked_fill((scores < likeliest.gather(-1, n_kept - 1)) & (top_p < 1), -math.inf)


def invert(scores: Tensor, uniform: Tensor) -> Tensor:
    """The tokens (N,) at which the cumulative distribution of `scores` (N, V) passes `uniform` (N,), in [0, 1)."""
    cumulative = scores.softmax(dim=-1).to(uniform.dtype).cumsum(dim=-1)
    total = cumulative[:, -1:]
    # Rounding must not lift the product onto the total, behind the last token that has any probability.
    target = (uniform[:, None] * total).minimum(total * (1 - torch.finfo(total.dtype).eps))
    # A row of NaN, which the caller tells apart, would end up behind the vocabulary.
    return torch.searchsorted(cumulative, target, right=True)[:, 0].clamp(max=scores.shape[-1] - 1)


def _as_far_as_right(draft: Sequence[int], drawn: Sequence[int]) -> list[int]:
    """The drawn tokens up to the first that is not the drafted one.

    >>> _as_far_as_right([4, 5, 6], [4, 5, 7, 8]), _as_far_as_right([4], [4, 9])
    ([4, 5, 7], [4, 9])
    """
    n_right = next((i for i, token in enumerate(draft) if token != drawn[i]), len(draft))
    return list(drawn[: n_right + 1])


class _Uniform:
    """A row's uniform numbers, some of which can be looked at before it is known whether they are used."""

    def __init__(self, generator: Random) -> None:
        self._generator = generator
        self._next: list[float] = []

    def ahead(self, n_tokens: int) -> float:
        """The number of the token that many after the next."""
        while len(self._next) <= n_tokens:
            self._next.append(self._generator.random())
        return self._next[n_tokens]

    def drop(self, n_tokens: int) -> None:
        del self._next[:n_tokens]


class _Bias:
    """Adds every row's logit bias."""

    def __init__(self, params: Sequence[SamplingParams], vocab_size: int, device: torch.device) -> None:
        given = {(row, token): value for row, p in enumerate(params) for token, value in (p.logit_bias or {}).items()}
        self._added = torch.zeros(len(params), vocab_size, device=device)
        self._added[_index(list(given), self._added)] = torch.tensor(list(given.values()), device=device)

    def __call__(self, scores: Tensor, places: Places) -> Tensor:
        return scores + places.spread(self._added)


class _Counts:
    """How often each token stands in each answer (B, V), and whether in the prompt."""

    def __init__(self, rows: Sequence[SamplerRow], vocab_size: int, device: torch.device) -> None:
        self.in_prompt = torch.zeros(len(rows), vocab_size, dtype=torch.bool, device=device)
        for place, row in enumerate(rows):
            self.in_prompt[place, torch.tensor(list(set(row.prompt_ids)), dtype=torch.int64, device=device)] = True
        self._in_answer = torch.zeros(len(rows), vocab_size, dtype=torch.int32, device=device)

    def keep(self, places: Sequence[int]) -> None:
        kept = torch.tensor(places, device=self.in_prompt.device, dtype=torch.int64)
        self.in_prompt, self._in_answer = self.in_prompt[kept], self._in_answer[kept]

    def in_answer(self, places: Places) -> Tensor:
        """The counts (N, V) before each place, the drafted tokens before it included."""
        before = places.spread(self._in_answer)
        starts = accumulate((len(draft) + 1 for draft in places.drafts), initial=0)
        drafted = [
            (start + depth, token)
            for start, draft in zip(starts, places.drafts, strict=False)
            for depth in range(1, len(draft) + 1)
            for token in draft[:depth]
        ]
        return before.index_put(_index(drafted, before), before.new_tensor(1), accumulate=True) if drafted else before

    def add(self, taken: Sequence[Sequence[int]]) -> None:
        at = [(row, token) for row, tokens in enumerate(taken) for token in tokens if token != BAD_ROW]
        self._in_answer.index_put_(_index(at, self._in_answer), self._in_answer.new_tensor(1), accumulate=True)


def _index(at: Sequence[tuple[int, int]], like: Tensor) -> tuple[Tensor, Tensor]:
    index = torch.tensor(at, device=like.device, dtype=torch.int64).view(-1, 2)
    return index[:, 0], index[:, 1]


class _Penalties:
    """Repetition over prompt and answer (Hugging Face's rule), then frequency and presence over the answer."""

    def __init__(self, params: Sequence[SamplingParams], counts: _Counts, device: torch.device) -> None:
        def column(values: list[float]) -> Tensor:
            return torch.tensor(values, device=device, dtype=torch.float32)[:, None]

        self._counts = counts
        self._repetition = column([p.repetition_penalty for p in params])
        self._frequency = column([p.frequency_penalty for p in params])
        self._presence = column([p.presence_penalty for p in params])

    def __call__(self, scores: Tensor, places: Places) -> Tensor:
        counts = self._counts.in_answer(places)
        answered = counts > 0
        repetition = places.spread(self._repetition)
        weaker = torch.where(scores > 0, scores / repetition, scores * repetition)
        scores = torch.where(answered | places.spread(self._counts.in_prompt), weaker, scores)
        return scores - places.spread(self._frequency) * counts - places.spread(self._presence) * answered
