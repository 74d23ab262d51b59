"""A conversation whose cache stays: each turn computes only what the turns before it have not."""

import time
from collections.abc import Sequence

from circius.base.errors import ParamsError
from circius.engine.answers import new_answer, token_namer
from circius.engine.batch import Batch, new_cache
from circius.engine.generate import IsCancelled, OnToken
from circius.engine.llm import LLM, never
from circius.engine.outputs import RequestOutput
from circius.engine.params import SamplingParams
from circius.engine.prefill import OnPrefill, unheard
from circius.engine.prompts import Conversation, as_conversations
from circius.engine.request import Request
from circius.model import RollingCache
from circius.text import Message


class ChatSession:
    """A conversation with a model, and the cache row that holds it.

    Each turn encodes the whole conversation anew and keeps of the cache the longest beginning that both have, so an
    answer is the one that a fresh start would give. If a ring has overwritten what the new part must see (an early
    turn was changed after the window had moved on), everything is filled in again.
    """

    def __init__(self, llm: LLM, messages: Conversation = (), *, guard: bool = False) -> None:
        self._llm = llm
        self.guard = guard
        """Whether turns are asked under the guard prompt, which is not among the messages. It may be changed."""
        self.messages: list[Message] = as_conversations(messages)[0] if messages else []
        """The conversation so far. It may be changed between turns."""
        self._cache: RollingCache | None = None
        self._cached_ids: list[int] = []

    @property
    def n_cached_tokens(self) -> int:
        """The tokens of the conversation that the cache has seen."""
        return len(self._cached_ids)

    @property
    def n_cache_bytes(self) -> int:
        """The bytes that the cache has allocated."""
        return self._cache.n_bytes if self._cache is not None else 0

    def reset(self, messages: Conversation = ()) -> None:
        """Begins a new conversation. What it shares with the old one stays in the cache."""
        self.messages = as_conversations(messages)[0] if messages else []

    def ask(
        self,
        content: str | Conversation,
        params: SamplingParams | None = None,
        *,
        on_token: OnToken | None = None,
        is_cancelled: IsCancelled = never,
        on_prefill: OnPrefill = unheard,
    ) -> RequestOutput:
        """The next answer, which becomes part of the conversation with the question.

        An aborted answer stays in the conversation as far as it went; if nothing was said yet, neither the question
        nor the answer does. After an error the conversation is as it was.

        content: what the user says next, or a whole conversation that takes the place of this one.

        Raises:
            TemplateError, PromptError, ContextOverflowError, ParamsError: before anything is computed.
        """
        if isinstance(content, str):
            messages = [*self.messages, Message("user", content)]
        else:
            messages = as_conversations(content)[0]
        request = self._llm.asker.chat(messages, params or SamplingParams(), guard=self.guard)
        _check_single(request)
        output = self._answer(request, on_token, is_cancelled, on_prefill)
        said = output.outputs[0]
        if said.text or said.finish_reason != "abort":
            self.messages = [*messages, Message("assistant", said.text)]
        return output

    def _answer(
        self, request: Request, on_token: OnToken | None, is_cancelled: IsCancelled, on_prefill: OnPrefill
    ) -> RequestOutput:
        called_at = time.perf_counter()
        cache = self._rewound_cache(request)
        n_cached = cache.lengths[0]
        answer = new_answer(request, 0, self._llm.tokenizer)
        batch = Batch(
            self._llm.model,
            cache,
            [answer],
            chunk_size=self._llm.limits.chunk_size,
            speculate=self._llm.limits.speculate,
            deliver=lambda _, text, token: on_token is None or on_token(0, 0, text, [token]) is not False,
            name_token=token_namer(self._llm.tokenizer),
            is_cancelled=is_cancelled,
            on_prefill=on_prefill,
        )
        try:
            batch.run()
        finally:
            # The last token of an answer is not forwarded; after an interruption even fewer are in the cache.
            self._cached_ids = [*request.prompt_ids, *answer.token_ids][: cache.lengths[0]]
        return batch.output(request, called_at, n_cached=n_cached)

    def _rewound_cache(self, request: Request) -> RollingCache:
        """The cache with room for the request, holding as much of its prompt as it can, but the last token."""
        if self._cache is None:
            self._cache = new_cache(self._llm.model, [request.n_cache_tokens], speculate=self._llm.limits.speculate)
            return self._cache
        n_shared = min(_n_common(self._cached_ids, request.prompt_ids), len(request.prompt_ids) - 1)
        if not self._cache.can_truncate(0, n_shared):
            n_shared = 0
        self._cache.truncate(0, n_shared)
        self._cached_ids = self._cached_ids[:n_shared]
        self._cache.reserve(0, request.n_cache_tokens)
        return self._cache


def _n_common(ids: Sequence[int], others: Sequence[int]) -> int:
    """How many ids two sequences have in common from the beginning.

    >>> _n_common([1, 2, 3], [1, 2, 4, 5])
    2
    """
    for place, (own, other) in enumerate(zip(ids, others, strict=False)):
        if own != other:
            return place
    return min(len(ids), len(others))


def _check_single(request: Request) -> None:
    if request.params.n != 1:
        raise ParamsError(f"n must be 1 in a conversation that goes on, got {request.params.n}")
    if request.params.prompt_logprobs is not None:
        raise ParamsError("prompt_logprobs are not computed in a session, whose prompt is cached: use LLM.chat")
