"""One answer while an engine makes it: its sampler, the log-probabilities that were asked for, and its siblings."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from circius.base.errors import CirciusError
from circius.engine.answer import Answer
from circius.engine.host_sampler import HostRow
from circius.engine.job import Job
from circius.engine.logprobs import NameToken, describe
from circius.engine.sampling import BAD_ROW, SamplerRow, why_bad
from circius.engine.stream import Stream
from circius.model import Adapter


@dataclass(frozen=True, eq=False)
class Ground:
    """What a stream's keys and values stand on, besides its tokens.

    root: before the keys of its pages; only streams with the same one share pages. adapter: what is added to the
    model's weights, if not the model's own.
    """

    root: bytes
    adapter: Adapter | None = None


@dataclass(eq=False)
class Run:
    """What belongs to a stream beside its pages."""

    job: Job
    answer: Answer
    row: SamplerRow
    vocab_size: int
    ground: Ground
    takes_found: bool
    siblings: list[Answer] = field(default_factory=list)
    """Answers to the same prompt that wait for it to be computed."""
    problem: CirciusError | None = None
    """Why no further token can be drawn."""
    n_described: int = 0
    """Tokens of the prompt after which the log-probabilities are known."""

    @cached_property
    def sampler(self) -> HostRow:
        """Made when the first token is drawn: penalties take arrays of the vocabulary's size, and many answers wait."""
        return HostRow(self.row, self.vocab_size)

    def describes(self, stream: Stream) -> bool:
        """Whether the log-probabilities of the prompt are wanted from what the stream computes next."""
        wants = self.job.request.params.prompt_logprobs is not None and self.answer.index == 0
        return wants and stream.n_cached < len(self.job.request.prompt_ids) and not self.answer.token_ids

    def describe_prompt(self, stream: Stream, n_tokens: int, logits: Tensor, name_token: NameToken | None) -> None:
        """Takes the log-probabilities of the prompt's tokens behind the next `n_tokens`, whose logits (n, V) these are.

        After a preemption tokens are computed again; what is known of them is not noted twice.
        """
        params, prompt = self.job.request.params, self.job.request.prompt_ids
        assert params.prompt_logprobs is not None
        begin, end = stream.n_cached, stream.n_cached + n_tokens
        following = prompt[max(begin, self.n_described) + 1 : end + 1]
        if following:
            skipped = max(begin, self.n_described) - begin
            self.job.prompt_logprobs += describe(
                logits[skipped : skipped + len(following)],
                torch.tensor(following),
                [params.prompt_logprobs] * len(following),
                name_token,
            )
        self.n_described = max(self.n_described, end)

    def give(
        self, stream: Stream, tokens: Sequence[int], logits: Tensor, name_token: NameToken | None
    ) -> tuple[int, str | None]:
        """Adds tokens to the stream and the answer until that ends; how many, and what is wrong with the next if it is.

        logits: (n, V), those from which the tokens were drawn.
        """
        entries = None
        n_top, named = self.job.request.params.logprobs, self.job.request.params.named_ids
        if n_top is not None and tokens[-1] != BAD_ROW:
            n = len(tokens)
            entries = describe(logits[:n], torch.tensor(tokens), [n_top] * n, name_token, [named] * n)
        for depth, token in enumerate(tokens):
            if token == BAD_ROW:
                return depth, why_bad(logits[depth], len(self.answer.token_ids))
            stream.tokens.append(token)
            text = self.answer.append(token, entries[depth] if entries else None)
            if self.job.deliver(self.job, self.answer, text, token) is False and self.answer.is_running:
                self.answer.abort()
            if not self.answer.is_running:
                return depth + 1, None
        return len(tokens), None
