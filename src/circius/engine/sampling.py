"""From logits to the next tokens of a batch, each row by its own parameters; a stage that no row uses costs nothing.

The order is vLLM's: logit bias, penalties, min_tokens; the argmax of that is the greedy token. Then the temperature,
min_p, top_k, top_p, and a draw by inverting the cumulative distribution in token order, with a uniform number from the
row's own generator. That generator is Python's (Mersenne twister, seeded by the text "seed/answer"), so a row's
numbers depend neither on its neighbours nor on the device nor on torch's version; the same seed gives the same tokens
as long as the logits agree to the last few bits, which decide only where a number falls on a border.
"""

import math
import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from circius.engine.params import SamplingParams

BAD_ROW = -1
"""What stands for the token of a row without a single finite logit, or with NaN among them."""
_HEAD = 1024


@dataclass(frozen=True)
class SamplerRow:
    """What the sampler must know of one row: `end_ids` must not be drawn before `params.min_tokens`."""

    params: SamplingParams
    prompt_ids: Sequence[int]
    end_ids: frozenset[int] = frozenset()
    answer: int = 0
    """Which of the n answers this is; each has numbers of its own."""


class Sampler:
    """Draws the next token of each row, one step after the other, all rows in the same step."""

    def __init__(self, rows: Sequence[SamplerRow], *, vocab_size: int, device: torch.device | str) -> None:
        self._device = torch.device(device)
        self._vocab_size = vocab_size
        self._step = 0
        self._random = [_generator(row) for row in rows]
        self._counts = _Counts(rows, vocab_size, self._device) if any(r.params.has_penalties for r in rows) else None
        self._set_rows(list(rows))

    def keep(self, places: Sequence[int]) -> None:
        """Goes on with these rows only; `places` are ascending places in the current batch."""
        self._random = [self._random[place] for place in places]
        if self._counts is not None:
            self._counts.keep(places)
        self._set_rows([self._rows[place] for place in places])

    def __call__(self, logits: Tensor) -> Tensor:
        """The next tokens (B,) int64 for `logits` (B, V), which are not changed; `BAD_ROW` where there is none."""
        scores = logits.float()
        for stage in self._score_stages:
            scores = stage(scores)
        best, tokens = scores.max(dim=-1)
        if self._any_random:
            drawn = self._draw(scores - best[:, None])
            tokens = drawn if self._greedy is None else torch.where(self._greedy, tokens, drawn)
        if self._counts is not None:
            self._counts.add(tokens)
        self._step += 1
        return torch.where(best.isfinite(), tokens, BAD_ROW)

    def _set_rows(self, rows: list[SamplerRow]) -> None:
        self._rows = rows
        params = [row.params for row in rows]
        self._score_stages: list[Callable[[Tensor], Tensor]] = []
        if any(p.logit_bias for p in params):
            self._score_stages.append(_Bias(params, self._device))
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

    def _draw(self, scores: Tensor) -> Tensor:
        """One token a row from the distribution of `scores`, whose largest is 0 in each row."""
        if self._temperature is not None:
            scores = scores / self._temperature
        if self._min_p is not None:
            scores = cut_min_p(scores, self._min_p)
        if self._top_k is not None:
            scores = cut_top_k(scores, self._top_k, largest=self._largest_top_k)
        if self._top_p is not None:
            scores = cut_top_p(scores, self._top_p)
        return invert(scores, self._tensor([generator.random() for generator in self._random]))

    def _forbid_ends(self, scores: Tensor) -> Tensor:
        places = [
            (place, token)
            for place, row in enumerate(self._rows)
            if self._step < row.params.min_tokens
            for token in row.end_ids
        ]
        if not places:
            return scores
        at = self._tensor(places)
        return scores.index_put((at[:, 0], at[:, 1]), scores.new_tensor(-math.inf))

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
    """`scores` (B, V) with -inf for every token less than `min_p` (B, 1) times as likely as the likeliest."""
    return scores.masked_fill(scores < scores.amax(dim=-1, keepdim=True) + min_p.log(), -math.inf)


def cut_top_k(scores: Tensor, top_k: Tensor, *, largest: int) -> Tensor:
    """`scores` (B, V) with -inf for all but the `top_k` (B, 1) likeliest tokens and those that tie with the last.

    A row with V or more keeps all. largest: the largest of the others, known on the host without asking the device.
    """
    limited = top_k < scores.shape[-1]
    # Rows without a limit look at place 0 of the short list and then ignore it.
    kth = scores.topk(largest, dim=-1).values.gather(-1, torch.where(limited, top_k, 1) - 1)
    return scores.masked_fill((scores < kth) & limited, -math.inf)


def cut_top_p(scores: Tensor, top_p: Tensor) -> Tensor:
    """`scores` (B, V) with -inf for all but the fewest likeliest tokens that together hold `top_p` (B, 1).

    Those that tie with the last of them stay too, so that the order in which a sort leaves equals never shows.
    """
    total = scores.logsumexp(dim=-1, keepdim=True)
    likeliest = _likeliest(scores, total, top_p)
    probabilities = (likeliest - total).exp()
    n_kept = (probabilities.cumsum(dim=-1) - probabilities < top_p).sum(dim=-1, keepdim=True).clamp(min=1)
    return scores.masked_fill((scores < likeliest.gather(-1, n_kept - 1)) & (top_p < 1), -math.inf)


def _likeliest(scores: Tensor, total: Tensor, top_p: Tensor) -> Tensor:
    """Each row's scores in descending order, as many as surely hold `top_p`."""
    # On the CPU a whole sort takes ten times as long, and asking whether the head is enough costs no waiting.
    if scores.device.type == "cpu" and scores.shape[-1] > _HEAD:
        head = scores.topk(_HEAD, dim=-1).values
        held = (head.logsumexp(dim=-1, keepdim=True) - total).exp()
        if bool(((held > top_p + 1e-5) | (top_p >= 1)).all()):
            return head
    return scores.sort(dim=-1, descending=True).values


def invert(scores: Tensor, uniform: Tensor) -> Tensor:
    """The tokens (B,) at which the cumulative distribution of `scores` (B, V) passes `uniform` (B,), in [0, 1)."""
    cumulative = scores.softmax(dim=-1).to(uniform.dtype).cumsum(dim=-1)
    total = cumulative[:, -1:]
    # Rounding must not lift the product onto the total, behind the last token that has any probability.
    target = (uniform[:, None] * total).minimum(total * (1 - torch.finfo(total.dtype).eps))
    # A row of NaN, which the caller tells apart, would end up behind the vocabulary.
    return torch.searchsorted(cumulative, target, right=True)[:, 0].clamp(max=scores.shape[-1] - 1)


def _generator(row: SamplerRow) -> random.Random:
    seed = row.params.seed if row.params.seed is not None else secrets.randbits(64)
    return random.Random(f"{seed}/{row.answer}")


class _Bias:
    """Adds every row's logit bias."""

    def __init__(self, params: Sequence[SamplingParams], device: torch.device) -> None:
        entries = [(row, token, value) for row, p in enumerate(params) for token, value in (p.logit_bias or {}).items()]
        rows, tokens, values = zip(*entries, strict=True)
        self._at = torch.tensor(rows, device=device), torch.tensor(tokens, device=device)
        self._values = torch.tensor(values, device=device, dtype=torch.float32)

    def __call__(self, scores: Tensor) -> Tensor:
        return scores.index_put(self._at, self._values, accumulate=True)


class _Counts:
    """How often each token stands in each answer (B, V), and whether in the prompt."""

    def __init__(self, rows: Sequence[SamplerRow], vocab_size: int, device: torch.device) -> None:
        self.in_prompt = torch.zeros(len(rows), vocab_size, dtype=torch.bool, device=device)
        for place, row in enumerate(rows):
            self.in_prompt[place, torch.tensor(list(set(row.prompt_ids)), dtype=torch.int64, device=device)] = True
        self.in_answer = torch.zeros(len(rows), vocab_size, dtype=torch.int32, device=device)

    def keep(self, places: Sequence[int]) -> None:
        kept = torch.tensor(places, device=self.in_prompt.device, dtype=torch.int64)
        self.in_prompt, self.in_answer = self.in_prompt[kept], self.in_answer[kept]

    def add(self, tokens: Tensor) -> None:
        self.in_answer.scatter_add_(1, tokens[:, None], torch.ones_like(tokens[:, None], dtype=torch.int32))


class _Penalties:
    """Repetition over prompt and answer (Hugging Face's rule), then frequency and presence over the answer."""

    def __init__(self, params: Sequence[SamplingParams], counts: _Counts, device: torch.device) -> None:
        def column(values: list[float]) -> Tensor:
            return torch.tensor(values, device=device, dtype=torch.float32)[:, None]

        self._counts = counts
        self._repetition = column([p.repetition_penalty for p in params])
        self._frequency = column([p.frequency_penalty for p in params])
        self._presence = column([p.presence_penalty for p in params])

    def __call__(self, scores: Tensor) -> Tensor:
        answered = self._counts.in_answer > 0
        weaker = torch.where(scores > 0, scores / self._repetition, scores * self._repetition)
        scores = torch.where(answered | self._counts.in_prompt, weaker, scores)
        return scores - self._frequency * self._counts.in_answer - self._presence * answered
