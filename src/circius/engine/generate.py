"""Offline generation: requests in, answers out, a limited number of rows at a time."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from circius.base.errors import ParamsError
from circius.engine.answer import Answer
from circius.engine.batch import Batch
from circius.engine.logprobs import NameToken
from circius.engine.outputs import RequestOutput, Timings
from circius.engine.prefill import OnPrefill, check_chunk_size, unheard
from circius.engine.request import Request
from circius.model import RollingCache, Transformer
from circius.text import StreamDecoder, Tokenizer

OnToken = Callable[[int, int, str, Sequence[int]], object]
"""Called for each new token with the prompt's index, the answer's index among n, the text that may be shown now (it can
be empty: part of a character, or what may yet become a stop text) and the new token ids. All texts of an answer join
to its `text`, unless it is aborted: then what was held back is only in the result. If it returns False, that answer is
aborted."""

IsCancelled = Callable[[], bool]
"""Asked between steps; True aborts every answer that has not ended."""


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """How much runs at once: rows of a batch, tokens of a pre-fill forward, drafted tokens of a row and step."""

    max_rows: int = 8
    chunk_size: int = 512
    speculate: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.max_rows, bool) or not isinstance(self.max_rows, int) or self.max_rows < 1:
            raise ParamsError(f"max_rows must be a whole number of rows, 1 or more, got {self.max_rows!r}")
        check_chunk_size(self.chunk_size)
        if isinstance(self.speculate, bool) or not isinstance(self.speculate, int) or self.speculate < 0:
            raise ParamsError(f"speculate must be a whole number of tokens, 0 for none, got {self.speculate!r}")


def generate(
    model: Transformer,
    requests: Sequence[Request],
    *,
    tokenizer: Tokenizer | None = None,
    limits: BatchLimits | None = None,
    on_token: OnToken | None = None,
    is_cancelled: IsCancelled = lambda: False,
    on_prefill: OnPrefill = unheard,
) -> list[RequestOutput]:
    """The answers to each request, in the order of the requests.

    After Ctrl-C, or once `is_cancelled` says so, unfinished answers come back as they are, with the finish reason
    "abort"; those that had not begun are empty.
    """
    limits = limits or BatchLimits()
    called_at = time.perf_counter()
    own = [[new_answer(request, n, tokenizer) for n in range(request.params.n)] for request in requests]
    index_of = {answer: index for index, answers in enumerate(own) for answer in answers}
    batches_of: list[list[Batch]] = [[] for _ in requests]
    name_token = token_namer(tokenizer)

    def deliver(answer: Answer, text: str, token: int) -> bool:
        return on_token is None or on_token(index_of[answer], answer.index, text, [token]) is not False

    is_running = True
    for answers in _in_groups(list(index_of), limits.max_rows):
        is_running = is_running and not is_cancelled()
        if not is_running:
            for answer in answers:
                answer.abort()
            continue
        batch = Batch(
            model,
            new_cache(model, [answer.request.n_cache_tokens for answer in answers], limits),
            answers,
            chunk_size=limits.chunk_size,
            speculate=limits.speculate,
            deliver=deliver,
            name_token=name_token,
            is_cancelled=is_cancelled,
            on_prefill=on_prefill,
        )
        is_running = batch.run()
        for index in dict.fromkeys(index_of[answer] for answer in answers):
            batches_of[index].append(batch)
    return [
        request_output(request, answers, batches, called_at)
        for request, answers, batches in zip(requests, own, batches_of, strict=True)
    ]


def new_answer(request: Request, index: int, tokenizer: Tokenizer | None) -> Answer:
    """An answer that has not begun, with a decoder for its text if there is a tokenizer."""
    if tokenizer is None:
        return Answer(request, index, None)
    before = request.prompt_ids if request.continues_text else ()
    skip_special = request.params.skip_special_tokens
    return Answer(request, index, partial(StreamDecoder, tokenizer, before, skip_special=skip_special))


def new_cache(model: Transformer, needs: Sequence[int], limits: BatchLimits) -> RollingCache:
    """A cache with a row for each need, whose rings can take a rejected draft back."""
    return RollingCache(model.config, needs, dtype=model.cache_dtype, device=model.device, extra_slots=limits.speculate)


def token_namer(tokenizer: Tokenizer | None) -> NameToken | None:
    """The text of one token alone, for log-probabilities; control tokens by their piece."""
    if tokenizer is None:
        return None

    def name(token: int) -> str:
        if tokenizer.is_special(token):
            return tokenizer.piece(token)
        return tokenizer.token_bytes(token).decode("utf-8", errors="replace")

    return name


def request_output(
    request: Request, answers: Sequence[Answer], batches: Sequence[Batch], called_at: float, *, n_cached: int = 0
) -> RequestOutput:
    """What the caller gets: the ended answers of one request, and the clock of the batches that they ran in."""
    prompt_logprobs = None
    if request.params.prompt_logprobs is not None:
        prompt_logprobs = next((entries for batch in batches if (entries := batch.prompt_entries(request))), None)
    outputs = [answer.output() for answer in answers]
    firsts = [batch.first_token_at for batch in batches if batch.first_token_at is not None]
    return RequestOutput(
        prompt=request.prompt,
        prompt_token_ids=list(request.prompt_ids),
        prompt_logprobs=prompt_logprobs,
        outputs=outputs,
        finished=all(output.finish_reason != "abort" for output in outputs),
        timings=Timings(
            prefill_s=sum(batch.prefill_s for batch in batches),
            decode_s=sum(batch.decode_s(request) for batch in batches),
            time_to_first_token_s=min(firsts) - called_at if firsts else None,
            prompt_tokens=len(request.prompt_ids),
            completion_tokens=sum(len(output.token_ids) for output in outputs),
            cached_tokens=n_cached,
            n_samples=len(outputs),
            drafted_tokens=sum(answer.n_drafted for answer in answers),
            accepted_tokens=sum(answer.n_accepted for answer in answers),
        ),
    )


def _in_groups(answers: Sequence[Answer], size: int) -> Iterator[Sequence[Answer]]:
    for begin in range(0, len(answers), size):
        yield answers[begin : begin + size]
