"""Our own engine as the model of a benchmark."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from circius.base.errors import InvalidInputError
from circius.engine.devices import is_exact_in_batches
from circius.engine.generate import BatchLimits, generate
from circius.engine.llm import LLM
from circius.engine.outputs import RequestOutput, check_finished
from circius.engine.params import SamplingParams
from circius.evals.identity import OnBytes, digest_of, digest_of_weights
from circius.evals.item import Choices, ChoicesAnswer, Passage, PassageAnswer, Sample, Text, TextAnswer
from circius.evals.likelihood import Likelihood, LikelihoodReader
from circius.evals.model import OnAnswered, Tokens, unheard
from circius.evals.pairs import Pair, encode_pair, fitted
from circius.model.packed_layers import PackedWeight
from circius.text import Tokenizer
from circius.weights.cast import short_name

MAX_STREAMS = 16


class EngineModel:
    """A model that is loaded. Likelihoods are computed with shared beginnings, texts through the batching engine."""

    def __init__(self, llm: LLM, *, max_streams: int = MAX_STREAMS, name: str = "", path: Path | None = None) -> None:
        """max_streams: the answers that are written at once. path: the files it was loaded from, for its digest.

        Raises:
            InvalidInputError: it has no tokenizer.
        """
        if llm.tokenizer is None:
            raise InvalidInputError("a benchmark is made of texts, and this model came without a tokenizer: name one")
        self.llm, self.n_at_once = llm, max_streams
        self._tokenizer: Tokenizer = llm.tokenizer
        self._name, self._path = name, path
        self._limits = BatchLimits(
            max_rows=max_streams, chunk_size=llm.limits.chunk_size, speculate=llm.limits.speculate
        )
        self._reader = LikelihoodReader(llm.model, chunk_size=llm.limits.chunk_size)

    @property
    def tokens(self) -> Tokens:
        own = self._tokenizer
        start = own.bos_id if own.bos_id is not None else min(own.eos_ids, default=None)
        return Tokens(encode=own.encode, start=start, adds_bos=own.adds_bos, context=self.llm.context)

    @property
    def n_forwarded(self) -> int:
        """The tokens that likelihoods have cost so far."""
        return self._reader.n_forwarded

    def describe(self, on_bytes: OnBytes = lambda done, total: None) -> dict[str, Any]:
        """What tells it from other models. on_bytes: called while its files are read for their digest."""
        model, config = self.llm.model, self.llm.config
        return {
            "kind": "engine",
            "name": self._name,
            "sha256": digest_of(self._path, on_bytes) if self._path else digest_of_weights(model),
            "tokenizer": self._tokenizer.source.name,
            "tokenizer_sha256": digest_of(self._tokenizer.source),
            "adds_bos": self._tokenizer.adds_bos,
            "parameters": config.n_parameters,
            "dtype": short_name(model.dtype),
            "activations": next((own.activations for own in model.modules() if isinstance(own, PackedWeight)), None),
            "is_exact_in_batches": is_exact_in_batches(model),
            "cache_dtype": str(model.cache_dtype).removeprefix("torch."),
            "window": list(config.window_size) if isinstance(config.window_size, tuple) else config.window_size,
            "rope_theta": config.rope_theta,
            "context": self.llm.context,
            "device": str(model.device),
            "adapter": None if model.adapter is None else model.adapter.fingerprint.hex(),
            "max_streams": self.n_at_once,
            "chunk_size": self._limits.chunk_size,
        }

    def loglikelihoods(self, asks: Sequence[Choices], on_answered: OnAnswered = unheard) -> list[ChoicesAnswer]:
        """The likelihoods of all choices; what their contexts share is computed once.

        Raises:
            InvalidInputError: a continuation that has no token of its own, or is longer than the context.
        """
        conditional = [
            [self._pair(*both) for both in zip(ask.contexts, ask.continuations, strict=True)] for ask in asks
        ]
        unconditional = [
            [] if ask.unconditional is None else [self._pair(ask.unconditional, own) for own in ask.continuations]
            for ask in asks
        ]
        pairs = [pair for own in (*conditional, *unconditional) for pair in own]
        n_different = len({(pair.context, pair.continuation) for pair in pairs})
        found = iter(self._reader.pairs(pairs, lambda n_read: on_answered(n_read / n_different)))
        likelihoods = [[next(found) for _ in own] for own in conditional]
        without = [[next(found) for _ in own] for own in unconditional]
        return [_answer(*parts) for parts in zip(conditional, likelihoods, without, strict=True)]

    def texts(self, asks: Sequence[Text], on_answered: OnAnswered = unheard) -> list[TextAnswer]:
        """The answers of all prompts, as many at once as there are streams; samples of one prompt share its reading.

        Raises:
            ContextOverflowError: `max_tokens` alone fill the context.
        """
        prompts = [self._prompt(ask) for ask in asks]
        requests = [self.llm.asker.completion(ids, _params(ask)) for ask, (ids, _) in zip(asks, prompts, strict=True)]
        outputs = generate(
            self.llm.model,
            requests,
            tokenizer=self._tokenizer,
            limits=self._limits,
            on_ended=lambda n_ended, n: on_answered(n_ended / n),
        )
        return [
            TextAnswer(samples=_samples(output), prompt_ids=tuple(ids), n_cut=n_cut)
            for output, (ids, n_cut) in zip(check_finished(outputs), prompts, strict=True)
        ]

    def passages(self, asks: Sequence[Passage], on_answered: OnAnswered = unheard) -> list[PassageAnswer]:
        """The likelihoods of all passages.

        Raises:
            InvalidInputError: one is longer than the context.
        """
        for ask in asks:
            if len(ask.ids) > self.llm.context + 1:  # the last token is only predicted
                raise InvalidInputError(
                    f"a passage of {len(ask.ids)} tokens does not fit into the context of {self.llm.context}"
                )
        return self._reader.passages(asks, lambda n_read: on_answered(n_read / len(asks)))

    def encode(self, text: str) -> list[int]:
        """The tokens of a prompt: with BOS, if the tokenizer adds one."""
        return self._tokenizer.encode(text, bos=self._tokenizer.adds_bos)

    def pair_likelihoods(self, pairs: Sequence[Pair]) -> list[Likelihood]:
        """The likelihoods of pairs that are tokens already."""
        return self._reader.pairs([self._fitted(pair) for pair in pairs])

    def _pair(self, context: str, continuation: str) -> Pair:
        return self._fitted(encode_pair(self.encode, context, continuation, start=self.tokens.start))

    def _fitted(self, pair: Pair) -> Pair:
        # The last token is predicted and never read.
        return fitted(pair, self.llm.context + 1, has_bos=self._tokenizer.adds_bos)

    def _prompt(self, ask: Text) -> tuple[list[int], int]:
        """The tokens of a prompt that leaves room for its answer, and how many were cut out behind BOS."""
        ids = self.encode(ask.prompt)
        n_cut = len(ids) + ask.max_tokens - self.llm.context
        if n_cut <= 0:
            return ids, 0
        n_head = int(self._tokenizer.adds_bos)
        if n_cut >= len(ids) - n_head:
            return ids, 0  # hopeless: the request will say so
        return ids[:n_head] + ids[n_head + n_cut :], n_cut


def _params(ask: Text) -> SamplingParams:
    return SamplingParams(
        n=ask.n,
        temperature=ask.temperature,
        top_p=ask.top_p,
        seed=ask.seed,
        stop=ask.stop,
        max_tokens=ask.max_tokens,
        logprobs=None if ask.is_greedy else 0,  # where samples vote, the likelier ones win ties
    )


def _samples(output: RequestOutput) -> tuple[Sample, ...]:
    return tuple(
        Sample(text=own.text, ids=tuple(own.token_ids), logprob=own.cumulative_logprob, finish=own.finish_reason)
        for own in output.outputs
    )


def _answer(
    pairs: Sequence[Pair], likelihoods: Sequence[Likelihood], unconditional: Sequence[Likelihood]
) -> ChoicesAnswer:
    return ChoicesAnswer(
        logprobs=tuple(own.logprob for own in likelihoods),
        is_greedy=tuple(own.is_greedy for own in likelihoods),
        unconditional=tuple(own.logprob for own in unconditional) or None,
        context_ids=tuple(pair.context for pair in pairs),
        continuation_ids=tuple(pair.continuation for pair in pairs),
        n_cut=max(pair.n_cut for pair in pairs),
    )
