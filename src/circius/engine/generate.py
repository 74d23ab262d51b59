"""Offline generation: requests in, answers out, all of them through one engine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from circius.base.errors import CirciusError, ParamsError
from circius.engine.answer import Answer
from circius.engine.engine import Engine
from circius.engine.engine_limits import EngineLimits
from circius.engine.job import Job
from circius.engine.outputs import RequestOutput
from circius.engine.prefill import OnPrefill, check_chunk_size, unheard
from circius.engine.prefix import PAGE
from circius.engine.request import Request
from circius.engine.stream import most_pages
from circius.model import Transformer
from circius.text import Tokenizer

OnToken = Callable[[int, int, str, Sequence[int]], object]
"""Called for each new token with the prompt's index, the answer's index among n, the text that may be shown now (it can
be empty: part of a character, or what may yet become a stop text) and the new token ids. All texts of an answer join
to its `text`, unless it is aborted: then what was held back is only in the result. If it returns False, that answer is
aborted."""

IsCancelled = Callable[[], bool]
"""Asked between steps; True aborts every answer that has not ended."""


OnEnded = Callable[[int, int], object]
"""Called when a request has ended, with how many have and how many there are."""


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
    on_ended: OnEnded = unheard,
) -> list[RequestOutput]:
    """The answers to each request, in the order of the requests.

    After Ctrl-C, or once `is_cancelled` says so, unfinished answers come back as they are, with the finish reason
    "abort"; those that had not begun are empty.

    Raises:
        CirciusError: the numbers of a request went wrong.
    """
    if not requests:
        return []
    limits = limits or BatchLimits()
    engine = Engine(model, limits=engine_limits(model, requests, limits), tokenizer=tokenizer)
    index_of: dict[Job, int] = {}

    def deliver(job: Job, answer: Answer, text: str, token: int) -> object:
        return on_token is None or on_token(index_of[job], answer.index, text, [token])

    n_ended = 0
    failed: list[CirciusError] = []

    def ended(job: Job) -> None:
        nonlocal n_ended
        n_ended += 1
        if job.error is not None:
            failed.append(job.error)
        on_ended(n_ended, len(requests))

    for index, request in enumerate(requests):
        index_of[engine.submit(request, deliver=deliver, ended=ended)] = index
    try:
        _run(engine, list(index_of), failed, is_cancelled, on_prefill)
    except KeyboardInterrupt:
        for job in index_of:
            engine.abort(job)
    return [job.output() for job in index_of]


def _run(
    engine: Engine,
    jobs: Sequence[Job],
    failed: Sequence[CirciusError],
    is_cancelled: IsCancelled,
    on_prefill: OnPrefill,
) -> None:
    """Steps until all jobs have ended, one has failed, or nobody wants them any more."""
    n_prompt = sum(len(job.request.prompt_ids) for job in jobs)
    n_read = -1
    while not is_cancelled():
        if n_read < n_prompt and n_read != (n_read := engine.n_prompt_tokens_read):
            on_prefill(n_read, n_prompt)
        if not engine.step():
            return
        if failed:
            raise failed[0]
    for job in jobs:
        engine.abort(job)


def engine_limits(model: Transformer, requests: Sequence[Request], limits: BatchLimits) -> EngineLimits:
    """An engine with as much cache as the largest of these requests take that can run together."""
    window = model.config.widest_window
    n_pages = sorted(
        (most_pages(r.n_cache_tokens, window, limits.chunk_size) for r in requests for _ in range(r.params.n)),
        reverse=True,
    )
    spare = 1 if limits.speculate else 0  # drafts go without where there is none
    return EngineLimits(
        cache_tokens=PAGE * sum(pages + spare for pages in n_pages[: limits.max_rows]),
        max_streams=limits.max_rows,
        chunk_size=limits.chunk_size,
        mixed_chunk_size=limits.chunk_size,  # nobody watches: the fewer steps the better
        speculate=limits.speculate,
    )
