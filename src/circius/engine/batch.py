"""Some answers on the rows of one cache: pre-fill, then one token a row and step until each has ended."""

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from circius.base.errors import CirciusError
from circius.engine.answer import Answer
from circius.engine.logprobs import NameToken, describe
from circius.engine.outputs import Logprobs
from circius.engine.prefill import OnPrefill, forward_chunks, prefill, unheard
from circius.engine.request import Request
from circius.engine.sampling import BAD_ROW, Sampler, SamplerRow
from circius.model import RollingCache, Transformer

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
        deliver: Deliver = lambda answer, text, token: True,
        name_token: NameToken | None = None,
        is_cancelled: Callable[[], bool] = lambda: False,
        on_prefill: OnPrefill = unheard,
    ) -> None:
        assert cache.n_rows == len(answers)
        self._model, self._cache, self._answers = model, cache, answers
        self._chunk_size = chunk_size
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
        rows = [
            SamplerRow(a.request.params, a.request.prompt_ids, a.request.end_ids, answer=a.index) for a in self._answers
        ]
        sampler = Sampler(rows, vocab_size=logits.shape[-1], device=logits.device)
        active = list(range(len(rows)))
        while True:
            tokens = sampler(logits)
            ids = tokens.tolist()  # the one place where the host waits for the device
            self._take(active, ids, self._describe(active, logits, tokens), logits)
            places = [place for place, row in enumerate(active) if self._answers[row].is_running]
            if not places or self._is_cancelled():
                return
            if len(places) < len(active):
                active = [active[place] for place in places]
                tokens = tokens[torch.tensor(places, device=tokens.device)]
                sampler.keep(places)
            logits = self._model(tokens, [1] * len(active), cache=self._cache, rows=active, logits="last")

    def _take(
        self, active: Sequence[int], ids: Sequence[int], entries: Sequence[Logprobs | None], logits: Tensor
    ) -> None:
        now = time.perf_counter()
        self.first_token_at = self.first_token_at or now
        for place, (row, token) in enumerate(zip(active, ids, strict=True)):
            if token == BAD_ROW:
                raise CirciusError(_why_bad(logits[place], self._answers[row]))
        for row, token, entry in zip(active, ids, entries, strict=True):
            answer = self._answers[row]
            text = answer.append(token, entry)
            if not answer.is_running:
                self._ended_at[row] = now
            if not self._deliver(answer, text, token) and answer.is_running:
                self._abort(row)

    def _describe(self, active: Sequence[int], logits: Tensor, tokens: Tensor) -> list[Logprobs | None]:
        """For each active row its entry of `logprobs`, None where none was asked for."""
        wanted = [self._answers[row].request.params.logprobs for row in active]
        places = [place for place, n_top in enumerate(wanted) if n_top is not None]
        if not places:
            return [None] * len(active)
        at = torch.tensor(places, device=logits.device)
        chosen = tokens[at].clamp(min=0)
        described = iter(describe(logits[at], chosen, [wanted[place] or 0 for place in places], self._name_token))
        return [None if n_top is None else next(described) for n_top in wanted]

    def _abort(self, row: int) -> None:
        self._ended_at[row] = time.perf_counter()
        self._answers[row].abort()

    def _shares_prompt(self, row: int, other: int) -> bool:
        return self._answers[row].request is self._answers[other].request


def _why_bad(logits: Tensor, answer: Answer) -> str:
    place = len(answer.token_ids)
    if bool(logits.isfinite().all()):
        return f"no token is allowed at place {place} of the answer: logit_bias or min_tokens forbids all of them"
    return (
        f"the model's output at place {place} of the answer is not finite (NaN or infinity): the weights are damaged, "
        "or the numbers overflow in this dtype; try --dtype float32 or bfloat16"
    )
