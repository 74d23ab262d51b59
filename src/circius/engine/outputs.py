"""What generation gives back, in the shape that vLLM users know. No torch here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from circius.text.tools import ToolCall

FinishReason = Literal["stop", "length", "abort", "tool_calls", "content_filter"]


@dataclass(frozen=True)
class Logprob:
    """One token's natural log-probability at one place, in the model's own distribution.

    That is before bias, penalties, temperature and every cut, as vLLM does by default. `rank` is 1 for the most
    likely token; tokens that tie share a rank. `decoded_token` is None where there is no tokenizer.
    """

    logprob: float
    rank: int
    decoded_token: str | None = None


Logprobs = Mapping[int, Logprob]
"""At one place of a text: the token that stands there and the most likely ones, by token id."""


@dataclass(frozen=True, kw_only=True)
class CompletionOutput:
    """One answer to a prompt.

    `token_ids` ends with the end token that stopped it, if one did; `text` does not show it. `finish_reason` is
    "stop" (an end token, a stop token or a stop text), "tool_calls" (the same, behind calls of tools), "length"
    (max_tokens), "abort" (cancelled by the caller: what had been made so far) or "content_filter" (a server's policy
    shows something else in its place). `tool_calls` are the functions that
    the model wants to be called; `text` does not show them. If the answer was cut off ("length", a stop text), the
    arguments of the last one may be. `stop_reason` is the stop text or the stop token's id, and None for the
    tokenizer's own end token. `cumulative_logprob` and `logprobs` are None unless they were asked for.
    """

    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None = None
    logprobs: list[Logprobs] | None = None
    finish_reason: FinishReason
    stop_reason: int | str | None = None
    tool_calls: list[ToolCall] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Where the time of one request went, in seconds, and over how many tokens.

    Requests that ran in one batch share its clock, so their rates are the rate at which this request advanced,
    not the machine's. `prefill_s` ends, and `decode_s` begins, when the first new token is known.
    `time_to_first_token_s` counts from the call, waiting for earlier batches included; it is None if there was
    no token. `cached_tokens` of the prompt were in the cache already; `completion_tokens` is over all
    `n_samples` answers. Of the `drafted_tokens`, which were guessed ahead, the `accepted_tokens` stand in the answers.
    """

    prefill_s: float
    decode_s: float
    time_to_first_token_s: float | None
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    n_samples: int = 1
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    @property
    def prefill_tokens_per_s(self) -> float:
        """Tokens of the prompt that were computed, each second; 0 where no time was measured."""
        return (self.prompt_tokens - self.cached_tokens) / self.prefill_s if self.prefill_s > 0 else 0.0

    @property
    def decode_tokens_per_s(self) -> float:
        """New tokens after the first of each answer (that one belongs to the pre-fill), each second.

        >>> Timings(prefill_s=1, decode_s=2, time_to_first_token_s=1, prompt_tokens=9,
        ...         completion_tokens=11).decode_tokens_per_s
        5.0
        """
        n_decoded = max(self.completion_tokens - self.n_samples, 0)
        return n_decoded / self.decode_s if self.decode_s > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class RequestOutput:
    """All answers to one prompt. `prompt` is None where token ids were given.

    `prompt_logprobs` has one entry for each token of the prompt, None for the first, which nothing predicts.
    `finished` is False if any answer was aborted.
    """

    prompt: str | None
    prompt_token_ids: list[int]
    prompt_logprobs: list[Logprobs | None] | None
    outputs: list[CompletionOutput]
    finished: bool
    timings: Timings


def check_finished(results: Sequence[RequestOutput]) -> Sequence[RequestOutput]:
    """The same results: for callers to whom an answer that was cut short is none, such as whoever keeps or judges it.

    Raises:
        KeyboardInterrupt: the generation was stopped by Ctrl-C, which `generate` itself does not pass on.
    """
    if not all(result.finished for result in results):
        raise KeyboardInterrupt
    return results
