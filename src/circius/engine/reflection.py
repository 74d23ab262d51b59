"""Self-reflection with a model of ours: the probabilities of tokens that may come next, as requests of one token.

All questions for a category begin with the same few hundred tokens. They go through one engine that stays, so those
tokens are computed once, for the first text, and found in its cache for every other.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from circius.base.errors import TemplateError
from circius.engine.engine import Engine
from circius.engine.engine_limits import EngineLimits
from circius.engine.generate import engine_limits
from circius.engine.outputs import RequestOutput
from circius.engine.params import SamplingParams
from circius.engine.request import Request
from circius.moderate.categories import categories_named
from circius.moderate.reflect import NextLogprobs, Reflector

if TYPE_CHECKING:
    from circius.engine.llm import LLM


def reflector(llm: "LLM", categories: str = "long", *, next_logprobs: NextLogprobs | None = None) -> Reflector:
    """What asks this model for the categories of texts.

    categories: short, the paper's three, or long, thirteen. next_logprobs: how the model is asked, if not by `llm`
    itself: a server has its own way.

    Raises:
        InvalidInputError: there is no such list.
        TemplateError: the model has no chat template.
        ContextOverflowError: the question alone does not fit the context.
    """
    named = categories_named(categories)
    if llm.chat_template is None:
        raise TemplateError("moderation asks the model as a user would, and this one has no chat template: name one")
    return Reflector(llm.chat_template, named, next_logprobs or NextToken(llm), context=llm.context)


class NextToken:
    """Tells the log-probabilities of tokens after prompts, in the model's own distribution."""

    def __init__(self, llm: "LLM") -> None:
        self._llm = llm
        self._engine: Engine | None = None

    def __call__(self, prompts: Sequence[Sequence[int]], tokens: Sequence[Sequence[int]]) -> list[list[float]]:
        if not prompts:
            return []
        requests = naming_requests(self._llm, prompts, tokens)
        engine = self._engine_for(requests)
        jobs = []
        for request in requests:
            jobs.append(engine.submit(request))
            if len(jobs) == 1:
                _run(engine)  # alone, so that the others find what they share with it
        _run(engine)
        return [named_logprobs(job.output(), own) for job, own in zip(jobs, tokens, strict=True)]

    def _engine_for(self, requests: Sequence[Request]) -> Engine:
        """The engine, made anew if its cache is too small for these."""
        wanted = engine_limits(self._llm.model, requests, self._llm.limits)
        if self._engine is None or self._engine.limits.cache_tokens < wanted.cache_tokens:
            limits = EngineLimits(
                cache_tokens=2 * wanted.cache_tokens,  # half of it to keep what others may share
                max_streams=wanted.max_streams,
                chunk_size=wanted.chunk_size,
                mixed_chunk_size=wanted.mixed_chunk_size,
            )
            self._engine = Engine(self._llm.model, limits=limits, tokenizer=self._llm.tokenizer)
        return self._engine


def naming_requests(llm: "LLM", prompts: Sequence[Sequence[int]], tokens: Sequence[Sequence[int]]) -> list[Request]:
    """For each prompt a request of one token that tells the log-probabilities of its tokens."""
    return [
        llm.asker.completion(prompt, SamplingParams.greedy(max_tokens=1, logprobs=0, logprob_token_ids=own))
        for prompt, own in zip(prompts, tokens, strict=True)
    ]


def named_logprobs(result: RequestOutput, tokens: Sequence[int]) -> list[float]:
    """The log-probabilities of these tokens in the result of such a request."""
    [answer] = result.outputs
    assert answer.logprobs
    return [answer.logprobs[0][token].logprob for token in tokens]


def _run(engine: Engine) -> None:
    try:
        while engine.step():
            pass
    except BaseException:
        for job in engine.jobs:
            engine.abort(job)
        raise
