"""How well a model predicts a text: negative log-likelihood, perplexity, bits per byte.

The protocol. A model that starts its texts with BOS is given one, and then every token of the text is scored; without
BOS the first token is only context. A text longer than the context is cut into segments, each with a BOS of its own.
By default they stand side by side, the common perplexity protocol; with `stride` each segment begins `stride` tokens
after the one before it and only tokens that no earlier segment scored are counted, so that later tokens see more of
what came before them. `score_stream` cuts nothing: one pass through the rolling cache, at constant memory.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from circius.base.errors import CirciusError, InvalidInputError, ParamsError, PromptError
from circius.engine.logprobs import token_logprobs
from circius.engine.prefill import check_chunk_size, forward_chunks, prefill
from circius.engine.reading import TextCounter, read_pieces, stream_ids
from circius.model import RollingCache, Transformer
from circius.text import Tokenizer

OnScored = Callable[[int, float], None]
"""Called now and then with the tokens scored so far and their negative log-likelihood in nats."""

ENDLESS = 2**62
"""A need that no text reaches: a row with a window takes W slots for it."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """The sum over the `n_tokens` scored tokens of -ln p, in nats; `n_bytes` is the text's length in UTF-8.

    `n_bytes` is None where only token ids were given. `notes` say how the text was cut and what was not scored.
    """

    n_tokens: int
    total_nll: float
    n_bytes: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def mean_nll(self) -> float:
        """Nats a token."""
        return self.total_nll / self.n_tokens

    @property
    def perplexity(self) -> float:
        """The exponential of the mean; infinite where that overflows.

        >>> round(Score(n_tokens=2, total_nll=2 * math.log(8)).perplexity, 9)
        8.0
        """
        return math.exp(self.mean_nll) if self.mean_nll < 700 else math.inf

    @property
    def bits_per_byte(self) -> float | None:
        """All nats as bits, over the bytes of the whole text."""
        return self.total_nll / math.log(2) / self.n_bytes if self.n_bytes else None


@torch.inference_mode()
def score_text(
    model: Transformer,
    tokenizer: Tokenizer | None,
    text: str | Path | Iterable[str],
    *,
    context: int,
    stream: bool,
    stride: int | None,
    chunk_size: int,
    on_scored: OnScored | None,
) -> Score:
    """The score of a text, with its bytes: `LLM.score` says what the arguments are and what is raised."""
    if tokenizer is None:
        raise PromptError("this model came without a tokenizer: a text cannot be scored")
    if stream and stride is not None:
        raise InvalidInputError("a stream is not cut into segments: leave out the stride, or the stream")
    counter = TextCounter(read_pieces(text) if isinstance(text, Path) else [text] if isinstance(text, str) else text)
    ids = stream_ids(tokenizer, counter)
    bos_id = tokenizer.bos_id if tokenizer.adds_bos else None
    if stream:
        score = score_stream(model, ids, bos_id=bos_id, chunk_size=chunk_size, on_scored=on_scored)
    else:
        score = score_tokens(
            model, ids, bos_id=bos_id, context=context, stride=stride, chunk_size=chunk_size, on_scored=on_scored
        )
    return replace(score, n_bytes=counter.n_bytes)


def score_tokens(
    model: Transformer,
    ids: Iterable[int],
    *,
    bos_id: int | None = None,
    context: int | None = None,
    stride: int | None = None,
    chunk_size: int = 512,
    on_scored: OnScored | None = None,
) -> Score:
    """The score of a text by segments of at most `context` tokens, the BOS of each included.

    ids: the text's tokens, without BOS; they are taken as they are needed, a segment at a time.
    bos_id: what each segment starts with; None for a model that is not used to one.
    stride: the tokens by which a segment begins after the last; None for segments side by side.

    Raises:
        ParamsError: context, stride or chunk_size out of range.
        PromptError: too few tokens, or one that the model does not have.
        CirciusError: the model's output is not finite.
    """
    check_chunk_size(chunk_size)
    context = model.config.context_len if context is None else context
    capacity = context - (bos_id is not None)
    stride = capacity if stride is None else stride
    if capacity < 1 or context < 2:
        raise ParamsError(f"context must leave room for something to predict: 2 tokens or more, got {context}")
    if not 1 <= stride <= capacity:
        raise ParamsError(f"stride must be 1 to {capacity} for a context of {context}, got {stride}")
    tally = _Tally(on_scored)
    n_segments = n_unscored = 0
    for segment, n_seen in _segments(_checked(ids, model.config.vocab_size), capacity, stride):
        n_segments += 1
        start = [] if bos_id is None else [bos_id]
        n_known = len(start) + n_seen
        n_unscored += n_known == 0
        cache = RollingCache(model.config, [len(start) + len(segment)], dtype=model.cache_dtype, device=model.device)
        tokens = start + segment
        if n_known > 1:
            prefill(model, cache, {0: tokens[: n_known - 1]}, chunk_size=chunk_size)
        for logprobs in continued_logprobs(model, cache, tokens[max(n_known - 1, 0) :], chunk_size=chunk_size):
            tally.add(logprobs)
    notes = [f"scored {n_segments} segment{'s' * (n_segments != 1)} of at most {context} tokens"]
    if n_unscored:
        notes.append(f"{n_unscored} tokens at the start of a segment only served as context: there is no BOS token")
    return tally.score(notes)


@torch.inference_mode()
def score_stream(
    model: Transformer,
    ids: Iterable[int],
    *,
    bos_id: int | None = None,
    chunk_size: int = 512,
    on_scored: OnScored | None = None,
) -> Score:
    """The score of a text of any length in one pass: each token sees all that its windows reach, nothing is cut.

    ids: the text's tokens, without BOS, taken chunk by chunk.

    Raises:
        InvalidInputError: a layer has no window, so that memory would grow with the text.
        ParamsError, PromptError, CirciusError: as `score_tokens`.
    """
    check_chunk_size(chunk_size)
    if not model.config.has_bounded_cache:
        raise InvalidInputError(
            "a stream needs a sliding window in every layer, or its cache would grow with the text, and this model "
            "has none: give one (--window N), or score by segments without --stream"
        )
    tally = _Tally(on_scored)
    cache = RollingCache(model.config, [ENDLESS], dtype=model.cache_dtype, device=model.device)
    tokens = _checked(ids, model.config.vocab_size)
    known = list(islice(tokens, 1)) if bos_id is None else [bos_id]
    while known and (new := list(islice(tokens, chunk_size))):
        for logprobs in continued_logprobs(model, cache, known + new, chunk_size=chunk_size):
            tally.add(logprobs)
        known = new[-1:]
    notes = [f"scored in one stream through the rolling cache ({cache.n_bytes} bytes)"]
    if bos_id is None:
        notes.append("the first token only served as context: there is no BOS token")
    return tally.score(notes)


def continued_logprobs(
    model: Transformer, cache: RollingCache, ids: Sequence[int], *, chunk_size: int
) -> Iterator[Tensor]:
    """The log-probabilities of all `ids` but the first, chunk by chunk, after what row 0 of the cache holds.

    The last one is predicted but not forwarded.
    """
    tokens = torch.tensor(ids, device=model.device)
    for begin, logits in forward_chunks(model, cache, 0, tokens[:-1], chunk_size=chunk_size):
        yield token_logprobs(logits, tokens[begin + 1 : begin + 1 + len(logits)])


class _Tally:
    """The running sum, in double precision on the host."""

    def __init__(self, on_scored: OnScored | None) -> None:
        self._n_tokens, self._nll = 0, 0.0
        self._on_scored = on_scored

    def add(self, logprobs: Tensor) -> None:
        if not len(logprobs):
            return
        self._n_tokens += len(logprobs)
        # MPS has no float64, so the few numbers of a chunk are summed on the CPU.
        self._nll -= float(logprobs.cpu().double().sum())
        if not math.isfinite(self._nll):
            raise CirciusError(
                f"the model's output is not finite within the first {self._n_tokens} tokens: the weights are damaged, "
                "or the numbers overflow in this dtype; try --dtype float32 or bfloat16"
            )
        if self._on_scored is not None:
            self._on_scored(self._n_tokens, self._nll)

    def score(self, notes: list[str]) -> Score:
        if self._n_tokens == 0:
            raise PromptError("there is nothing to score: the text has no token that another one predicts")
        return Score(n_tokens=self._n_tokens, total_nll=self._nll, notes=tuple(notes))


def _segments(ids: Iterator[int], capacity: int, stride: int) -> Iterator[tuple[list[int], int]]:
    """Stretches of at most `capacity` ids, `stride` apart, each with how many of its ids an earlier one had.

    >>> list(_segments(iter(range(7)), capacity=4, stride=2))
    [([0, 1, 2, 3], 0), ([2, 3, 4, 5], 2), ([4, 5, 6], 2)]
    """
    segment = list(islice(ids, capacity))
    n_seen = 0
    while len(segment) > n_seen:
        yield segment, n_seen
        kept = segment[stride:]
        n_seen = len(kept)
        segment = kept + list(islice(ids, capacity - n_seen))


def _checked(ids: Iterable[int], vocab_size: int) -> Iterator[int]:
    for place, token in enumerate(ids):
        if not 0 <= token < vocab_size:
            raise PromptError(f"token {place} of the text is {token}: the model has tokens 0 to {vocab_size - 1}")
        yield token
