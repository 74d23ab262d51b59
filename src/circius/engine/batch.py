"""Some answers on the rows of one cache: pre-fill, then a token or more a row and step until each has ended."""

import time
from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from circius.base.errors import CirciusError
from circius.engine.answer import Answer
from circius.engine.device_sampler import DeviceSampler
from circius.engine.host_sampler import HostSampler
from circius.engine.logprobs import NameToken, describe
from circius.engine.outputs import Logprobs, RequestOutput, Timings
from circius.engine.prefill import OnPrefill, forward_chunks, prefill, unheard
from circius.engine.request import Request
from circius.engine.sampling import BAD_ROW, Sampler, SamplerRow, why_bad
from circius.engine.speculate import Speculator
from circius.model import RollingCache, Transformer

Drafts = Sequence[Sequence[int]]
Deliver = Callable[[Answer, str, int], bool]
"""Called with an answer, the text that may be shown now and the new token's id; False ends that answer."""


class Batch:
    """Answer i lives on row i of the cache. What a row holds already must be the beginning of its prompt.

    Answers to one request stand beside each other; its prompt is filled in once and the row copied.
    """

    def __init__(
        self,
        model: Transformer,
        cache: RollingCache,
        answers: Sequence[Answer],
        *,
        chunk_size: int,
        speculate: int = 0,
        deliver: Deliver = lambda answer, text, token: True,
        name_token: NameToken | None = None,
        is_cancelled: Callable[[], bool] = lambda: False,
        on_prefill: OnPrefill = unheard,
    ) -> None:
        """speculate: the most tokens to draft for a row and step; the rings must have that many extra slots."""
        assert cache.n_rows == len(answers)
        self._model, self._cache, self._answers = model, cache, answers
        self._chunk_size, self._speculate = chunk_size, speculate
        self._deliver, self._name_token, self._is_cancelled = deliver, name_token, is_cancelled
        self._on_prefill = on_prefill
        self._prompt_logprobs: dict[int, list[Logprobs | None]] = {}
        self._started_at = time.perf_counter()
        self.first_token_at: float | None = None
        """On the clock of `time.perf_counter`."""
        self._ended_at: dict[int, float] = {}

    @torch.inference_mode()
    def run(self) -> bool:
        """Runs every answer to its end; False if it was cancelled, by `is_cancelled` or by the keyboard.

        Raises:
            CirciusError: the model gave logits from which no token can be drawn.
        """
        try:
            logits = self._prefill()
            if logits is not None:
                self._decode(logits)
        except KeyboardInterrupt:
            pass
        running = [row for row, answer in enumerate(self._answers) if answer.is_running]
        for row in running:
            self._abort(row)
        return not running

    @property
    def prefill_s(self) -> float:
        """From the start to the first new token; after a run without one, to its end."""
        end = self.first_token_at or max(self._ended_at.values(), default=self._started_at)
        return end - self._started_at

    def decode_s(self, request: Request) -> float:
        """From the first new token to the end of the request's last answer."""
        if self.first_token_at is None:
            return 0.0
        own = [row for row, answer in enumerate(self._answers) if answer.request is request]
        return max(self._ended_at[row] for row in own) - self.first_token_at

    def prompt_entries(self, request: Request) -> list[Logprobs | None] | None:
        """The log-probabilities of the request's prompt, if they were asked for and computed."""
        rows = (row for row, answer in enumerate(self._answers) if answer.request is request)
        return next((self._prompt_logprobs[row] for row in rows if row in self._prompt_logprobs), None)

    def output(self, request: Request, called_at: float, *, n_cached: int = 0) -> RequestOutput:
        """The result of a request, when the batch has run.

        called_at: from when the time to the first token counts. n_cached: the tokens of the prompt that were in the
        cache already.
        """
        answers = [answer for answer in self._answers if answer.request is request]
        outputs = [answer.output() for answer in answers]
        return RequestOutput(
            prompt=request.prompt,
            prompt_token_ids=list(request.prompt_ids),
            prompt_logprobs=self.prompt_entries(request) if request.params.prompt_logprobs is not None else None,
            outputs=outputs,
            finished=all(output.finish_reason != "abort" for output in outputs),
            timings=Timings(
                prefill_s=self.prefill_s,
                decode_s=self.decode_s(request),
                time_to_first_token_s=self.first_token_at - called_at if self.first_token_at else None,
                prompt_tokens=len(request.prompt_ids),
                completion_tokens=sum(len(output.token_ids) for output in outputs),
                cached_tokens=n_cached,
                n_samples=len(outputs),
                drafted_tokens=sum(answer.n_drafted for answer in answers),
                accepted_tokens=sum(answer.n_accepted for answer in answers),
            ),
        )

    def _prefill(self) -> Tensor | None:
        """The logits (B, V) of every row's last prompt token; None if cancelled."""
        leaders = [row for row in range(len(self._answers)) if row == 0 or not self._shares_prompt(row - 1, row)]
        last: dict[int, Tensor] = {}
        texts: dict[int, Sequence[int]] = {}
        for row in leaders:
            request = self._answers[row].request
            if request.params.prompt_logprobs is None:
                texts[row] = request.prompt_ids[self._cache.lengths[row] :]
            elif self._is_cancelled():
                return None
            else:
                last[row] = self._prefill_described(row)
        last |= prefill(
            self._model,
            self._cache,
            texts,
            chunk_size=self._chunk_size,
            keep_going=lambda: not self._is_cancelled(),
            on_prefill=self._on_prefill,
        )
        if len(last) < len(leaders):
            return None
        for row in range(len(self._answers)):
            if row not in last:
                self._cache.copy_row(row - 1, row)
                last[row] = last[row - 1]
        return torch.stack([last[row] for row in range(len(self._answers))])

    def _prefill_described(self, row: int) -> Tensor:
        """Fills in one row with log-probabilities of its prompt, a chunk of logits at a time; its last logits (V,)."""
        request = self._answers[row].request
        assert request.params.prompt_logprobs is not None
        assert self._cache.lengths[row] == 0, "the tokens that are cached already would go undescribed"
        tokens = torch.tensor(request.prompt_ids, device=self._model.device)
        entries: list[Logprobs | None] = [None]
        logits = torch.empty(0)
        for begin, logits in forward_chunks(self._model, self._cache, row, tokens, chunk_size=self._chunk_size):
            following = tokens[begin + 1 : begin + 1 + len(logits)]
            if len(following):
                n_top = [request.params.prompt_logprobs] * len(following)
                entries += describe(logits[: len(following)], following, n_top, self._name_token)
        self._prompt_logprobs[row] = entries
        return logits[-1]

    def _decode(self, logits: Tensor) -> None:
        active = list(range(len(self._answers)))
        drafts: list[list[int]] = [[] for _ in active]
        sampler = self._sampler(logits)
        speculator = Speculator([a.request.prompt_ids for a in self._answers], n_most=self._speculate)
        taken = sampler(logits, drafts)
        while True:
            self._hand_out(active, drafts, taken, logits)
            places = [place for place, row in enumerate(active) if self._answers[row].is_running]
            if not places or self._is_cancelled():
                return
            if len(places) < len(active):
                active, taken = [active[place] for place in places], [taken[place] for place in places]
                sampler.keep(places)
            started_at = time.perf_counter()
            speculator.took(active, taken)
            drafts = speculator.drafts(active, [self._answers[row].n_left - 1 for row in active])
            lengths = [len(draft) + 1 for draft in drafts]
            new = [token for own, draft in zip(taken, drafts, strict=True) for token in (own[-1], *draft)]
            tokens = torch.tensor(new, device=self._model.device)
            logits = self._model(tokens, lengths, cache=self._cache, rows=active, logits="all")
            taken = sampler(logits, drafts)  # here the host waits for the device
            speculator.timed(len(active), len(new), time.perf_counter() - started_at)

    def _sampler(self, logits: Tensor) -> Sampler:
        rows = [
            SamplerRow(
                a.request.params, a.request.prompt_ids, a.request.end_ids, answer=a.index,
                constraint=a.request.constrain() if a.request.constrain else None,
            )
            for a in self._answers
        ]  # fmt: skip
        if logits.device.type == "cpu" or any(row.constraint for row in rows):
            return HostSampler(rows, vocab_size=logits.shape[-1])
        return DeviceSampler(rows, vocab_size=logits.shape[-1], device=logits.device)

    def _hand_out(self, active: Sequence[int], drafts: Drafts, taken: Sequence[Sequence[int]], logits: Tensor) -> None:
        """Gives the tokens of a step to the answers, place after place, as so many steps without drafts would.

        What was drafted and does not stand in an answer leaves the cache.
        """
        now = time.perf_counter()
        self.first_token_at = self.first_token_at or now
        begins = list(accumulate((len(draft) + 1 for draft in drafts), initial=0))
        entries = self._describe(active, begins, taken, logits)
        for depth in range(max(map(len, taken))):
            running = [
                (place, row)
                for place, row in enumerate(active)
                if depth < len(taken[place]) and self._answers[row].is_running
            ]
            for place, row in running:
                if taken[place][depth] == BAD_ROW:
                    raise CirciusError(why_bad(logits[begins[place] + depth], len(self._answers[row].token_ids)))
            for place, row in running:
                self._answers[row].n_accepted += depth < len(taken[place]) - 1
                self._deliver_one(row, taken[place][depth], entries.get((place, depth)), now)
        for row, draft in zip(active, drafts, strict=True):
            answer = self._answers[row]
            answer.n_drafted += len(draft)
            n_known = len(answer.request.prompt_ids) + len(answer.token_ids) - 1
            if n_known < self._cache.lengths[row]:
                self._cache.truncate(row, n_known)

    def _deliver_one(self, row: int, token: int, entry: Logprobs | None, now: float) -> None:
        answer = self._answers[row]
        text = answer.append(token, entry)
        if not answer.is_running:
            self._ended_at[row] = now
        if not self._deliver(answer, text, token) and answer.is_running:
            self._abort(row)

    def _describe(
        self, active: Sequence[int], begins: Sequence[int], taken: Sequence[Sequence[int]], logits: Tensor
    ) -> dict[tuple[int, int], Logprobs]:
        """The entries of `logprobs` by place in the batch and depth in the step, where any are asked for."""
        wanted = {place: self._answers[row].request.params for place, row in enumerate(active)}
        asked = [
            (place, depth, token, params)
            for place, params in wanted.items()
            if params.logprobs is not None
            for depth, token in enumerate(taken[place])
        ]
        if not asked:
            return {}
        at = torch.tensor([begins[place] + depth for place, depth, _, _ in asked], device=logits.device)
        tokens = torch.tensor([max(token, 0) for _, _, token, _ in asked], device=logits.device)
        n_top, named = [p.logprobs or 0 for *_, p in asked], [p.named_ids for *_, p in asked]
        entries = describe(logits[at], tokens, n_top, self._name_token, named)
        return {(place, depth): entry for (place, depth, _, _), entry in zip(asked, entries, strict=True)}

    def _abort(self, row: int) -> None:
        self._ended_at[row] = time.perf_counter()
        self._answers[row].abort()

    def _shares_prompt(self, row: int, other: int) -> bool:
        return self._answers[row].request is self._answers[other].request


def new_cache(model: Transformer, needs: Sequence[int], *, speculate: int) -> RollingCache:
    """A cache with a row for each need, whose rings can take a rejected draft of `speculate` tokens back."""
    return RollingCache(model.config, needs, dtype=model.cache_dtype, device=model.device, extra_slots=speculate)
