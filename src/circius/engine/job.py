"""One request in the engine: its answers, who hears of them, and where its time went. No torch here."""

import time
from collections.abc import Callable, Sequence

from circius.base.errors import CirciusError
from circius.engine.answer import Answer
from circius.engine.outputs import Logprobs, RequestOutput, Timings
from circius.engine.request import Request

Deliver = Callable[["Job", Answer, str, int], object]
"""Called with the text that may be shown now and the new token's id; False ends that answer."""
Ended = Callable[["Job"], object]
"""Called once, when no answer of the job is running any more: look at `error`, then at `output`."""


def nobody(*_: object) -> None:
    """For those who do not listen."""


class Job:
    """What `Engine.submit` returns. All times are on the clock of `time.perf_counter`.

    Attributes:
        error: why the job ended without a result, or None.
        n_found: tokens of the prompt that were in the cache already.
        prompt_logprobs: one entry for each token of the prompt so far, if they were asked for.
    """

    def __init__(self, request: Request, answers: Sequence[Answer], *, deliver: Deliver, ended: Ended) -> None:
        self.request, self.answers = request, list(answers)
        self.deliver, self.ended = deliver, ended
        self.error: CirciusError | None = None
        self.n_found = 0
        self.prompt_logprobs: list[Logprobs | None] = [None]
        self.arrived_at = time.perf_counter()
        self.started_at: float | None = None
        self.first_token_at: float | None = None
        self.ended_at: float | None = None

    @property
    def is_running(self) -> bool:
        return self.ended_at is None

    def start(self) -> None:
        """Notes when the first of its tokens was computed."""
        self.started_at = self.started_at or time.perf_counter()

    def end(self, error: CirciusError | None = None) -> None:
        """Ends what is still running, and says so to whom it concerns."""
        assert self.is_running, "a job ends once"
        self.error = error
        for answer in self.answers:
            if answer.is_running:
                answer.abort()
        self.ended_at = time.perf_counter()
        self.ended(self)

    def output(self) -> RequestOutput:
        """The result of a job that has ended.

        Raises:
            CirciusError: it ended with an error.
        """
        if self.error is not None:
            raise self.error
        assert self.ended_at is not None
        outputs = [answer.output() for answer in self.answers]
        started_at = self.started_at or self.ended_at
        first_at = self.first_token_at
        return RequestOutput(
            prompt=self.request.prompt,
            prompt_token_ids=list(self.request.prompt_ids),
            prompt_logprobs=self.prompt_logprobs if self.request.params.prompt_logprobs is not None else None,
            outputs=outputs,
            finished=all(output.finish_reason != "abort" for output in outputs),
            timings=Timings(
                prefill_s=(first_at or self.ended_at) - started_at,
                decode_s=self.ended_at - first_at if first_at else 0.0,
                time_to_first_token_s=first_at - self.arrived_at if first_at else None,
                prompt_tokens=len(self.request.prompt_ids),
                completion_tokens=sum(len(output.token_ids) for output in outputs),
                cached_tokens=self.n_found,
                n_samples=len(outputs),
                drafted_tokens=sum(answer.n_drafted for answer in self.answers),
                accepted_tokens=sum(answer.n_accepted for answer in self.answers),
            ),
        )
