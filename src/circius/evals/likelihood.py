"""How likely continuations are, with every shared beginning computed once.

What many contexts begin with (the examples of a few-shot prompt) is read once and kept in pages, found by what they
hold. A context is read once for all its continuations; each of those goes on from it on the same pages, but for the
last one that is not full, which is copied. Nothing is padded: rows of any length stand on one flat axis.

The order of everything follows from the pairs of one call alone, so that the same call gives the same numbers to the
last bit, also where sums depend on what they are computed beside.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from circius.base.errors import CirciusError
from circius.engine.logprobs import token_logprobs
from circius.engine.pool import PagePool
from circius.engine.prefill import plan_chunks
from circius.engine.prefix import PAGE, extend_keys, root_key
from circius.engine.stream import Stream
from circius.evals.item import Passage, PassageAnswer
from circius.evals.pairs import Pair
from circius.model import PagedCache, PagedRow, Transformer

Ids = tuple[int, ...]
OnRead = Callable[[int], object]
"""Called with how many pairs, or passages, have been read so far."""

_ROOT = root_key(b"evals")
_CHUNKS_OF_A_BATCH = 2
_CHUNKS_OF_PAGES = 8
"""Pages beside the largest text, in chunks: short texts leave most of their last page empty."""


@dataclass(frozen=True)
class Likelihood:
    """The sum of a continuation's log-probabilities; whether each of its tokens is the likeliest at its place."""

    logprob: float
    is_greedy: bool


@dataclass
class _Context:
    """A context, the different continuations asked for, and what is known of each so far."""

    ids: Ids
    continuations: list[Ids] = field(default_factory=list)
    logprobs: dict[Ids, list[float]] = field(default_factory=dict)
    is_greedy: dict[Ids, bool] = field(default_factory=dict)

    @property
    def longest(self) -> int:
        return len(self.ids) + max(map(len, self.continuations))

    def begin(self, logits: Tensor) -> None:
        """Takes the logits (V,) behind the context, which tell of every continuation's first token."""
        firsts = torch.tensor([own[0] for own in self.continuations], device=logits.device)
        best = int(logits.argmax())
        logprobs = logits.float().log_softmax(-1)[firsts].tolist()
        for own, logprob in zip(self.continuations, logprobs, strict=True):
            self.logprobs[own], self.is_greedy[own] = [logprob], best == own[0]

    def go_on(self, own: Ids, begin: int, logits: Tensor) -> None:
        """Takes the logits (n, V) behind the tokens `begin` to `begin + n - 1` of a continuation."""
        targets = torch.tensor(own[begin + 1 : begin + 1 + len(logits)], device=logits.device)
        self.logprobs[own] += token_logprobs(logits, targets).tolist()
        self.is_greedy[own] &= bool((logits.argmax(-1) == targets).all())


class LikelihoodReader:
    """A model that is asked for likelihoods; one call at a time."""

    def __init__(self, model: Transformer, *, chunk_size: int) -> None:
        self._model, self._chunk_size = model, chunk_size
        self._cache: PagedCache | None = None
        self._pool = PagePool(1)
        self.n_forwarded = 0
        """The tokens computed so far."""

    @torch.inference_mode()
    def pairs(self, pairs: Sequence[Pair], on_read: OnRead = lambda n: None) -> list[Likelihood]:
        """The likelihood of each pair's continuation; equal pairs are computed once.

        Raises:
            CirciusError: the model's output is not finite.
        """
        contexts: dict[Ids, _Context] = {}
        for pair in pairs:
            context = contexts.setdefault(pair.context, _Context(pair.context))
            if pair.continuation not in context.continuations:
                context.continuations.append(pair.continuation)
        ordered = sorted(contexts.values(), key=lambda context: context.ids)  # neighbours share the most
        if ordered:
            self._make_room(max(context.longest for context in ordered))
        n_read = 0
        for batch in self._batches(ordered):
            self._read_batch(batch)
            n_read += sum(len(context.continuations) for context in batch)
            on_read(n_read)
        return [_likelihood(contexts[pair.context], pair.continuation) for pair in pairs]

    @torch.inference_mode()
    def passages(self, passages: Sequence[Passage], on_read: OnRead = lambda n: None) -> list[PassageAnswer]:
        """The likelihood of each passage.

        Raises:
            CirciusError: the model's output is not finite.
        """
        answers = []
        for passage in passages:
            self._make_room(len(passage.ids))
            stream = Stream(passage.ids[:-1], root=_ROOT, takes_found=False)
            logprobs: list[float] = []
            for _, begin, logits in self._forward([stream], [passage.n_known - 1]):
                targets = torch.tensor(passage.ids[begin + 1 : begin + 1 + len(logits)], device=logits.device)
                logprobs += token_logprobs(logits, targets).tolist()
            stream.leave(self._pool)
            _check_finite(logprobs)
            squares = math.fsum(value * value for value in logprobs)
            answers.append(PassageAnswer(logprob=math.fsum(logprobs), squares=squares, n_tokens=len(logprobs)))
            on_read(len(answers))
        return answers

    def _make_room(self, longest: int) -> None:
        """An empty pool with pages for half a batch of contexts and half of continuations, whatever was there before:
        how many there are decides what is computed together."""
        n_pages = 2 * max(-(-longest // PAGE) + 1, _CHUNKS_OF_PAGES * self._chunk_size // PAGE)
        model = self._model
        if self._cache is None or self._cache.n_pages < n_pages:
            self._cache = PagedCache(model.config, n_pages, dtype=model.cache_dtype, device=model.device)
        self._pool = PagePool(n_pages)

    def _batches(self, contexts: Sequence[_Context]) -> Iterator[list[_Context]]:
        """Neighbours whose new tokens fill about two chunks, and whose pages at most half of the pool."""
        batch: list[_Context] = []
        n_tokens = n_pages = 0
        for context in contexts:
            shared = _shared_pages(batch[-1].ids, context.ids) * PAGE if batch else 0
            own_pages = -(-len(context.ids) // PAGE)
            is_full = n_tokens + len(context.ids) - shared > _CHUNKS_OF_A_BATCH * self._chunk_size
            if batch and (is_full or n_pages + own_pages > self._pool.n_pages // 2):
                yield batch
                batch, n_tokens, n_pages, shared = [], 0, 0, 0
            batch.append(context)
            n_tokens += len(context.ids) - shared
            n_pages += own_pages
        if batch:
            yield batch

    def _read_batch(self, batch: Sequence[_Context]) -> None:
        for stems in _levels([context.ids for context in batch]):
            self._read_stems(stems)
        streams = [self._stream(context.ids) for context in batch]
        for index, _, logits in self._forward(streams, [len(context.ids) - 1 for context in batch]):
            batch[index].begin(logits[-1])
        branches = [
            (context, stream, own)
            for context, stream in zip(batch, streams, strict=True)
            for own in context.continuations
            if len(own) > 1
        ]
        while branches:
            n_taken = self._read_branches(branches)
            branches = branches[n_taken:]
        for stream in streams:
            stream.leave(self._pool)

    def _read_stems(self, stems: Sequence[Ids]) -> None:
        """Puts beginnings that several contexts share into pages, unless they are there."""
        streams = []
        for stem in stems:
            keys: list[bytes] = []
            extend_keys(keys, _ROOT, stem, len(stem) // PAGE)
            if any(self._pool.find(key) is None for key in keys):
                streams.append(self._stream(stem))
        for _ in self._forward(streams, [len(stream.tokens) for stream in streams]):
            raise AssertionError("nobody asked for logits")
        for stream in streams:
            stream.leave(self._pool)

    def _read_branches(self, branches: Sequence[tuple[_Context, Stream, Ids]]) -> int:
        """Reads as many continuations as fill a chunk and find pages; returns how many."""
        cache = self._held_cache()
        forked: list[Stream] = []
        n_tokens = 0
        for _, stream, own in branches:
            branch = Stream([*stream.tokens, *own[:-1]], root=_ROOT)
            n_pages = -(-len(branch.tokens) // PAGE) - stream.n_cached // PAGE
            if forked and (n_tokens + len(own) - 1 > self._chunk_size or n_pages > self._pool.n_free):
                break
            if copy := stream.fork(self._pool, branch):
                cache.copy_page(*copy)
            branch.grow(self._pool, branch.n_new)  # now, so that the next one is told how many are left
            forked.append(branch)
            n_tokens += len(own) - 1
        for index, begin, logits in self._forward(forked, [len(branches[i][1].tokens) for i in range(len(forked))]):
            context, stream, own = branches[index]
            context.go_on(own, begin - len(stream.tokens), logits)
        for branch in forked:
            branch.leave(self._pool)
        return len(forked)

    def _stream(self, ids: Ids) -> Stream:
        """A text that begins with what the pages hold of it already."""
        stream = Stream(ids, root=_ROOT)
        stream.find(self._pool, self._model.config.widest_window)
        return stream

    def _forward(self, streams: Sequence[Stream], wanted: Sequence[int]) -> Iterator[tuple[int, int, Tensor]]:
        """Computes all that is new in the streams; yields (stream, position, logits (n, V) from that position on).

        wanted: the first position of each stream whose logits are wanted.
        """
        cache = self._held_cache()
        for stream in streams:
            stream.grow(self._pool, stream.n_new)
        starts = [stream.n_cached for stream in streams]
        for pieces in plan_chunks([stream.n_new for stream in streams], self._chunk_size):
            tokens: list[int] = []
            places: list[int] = []
            parts: list[tuple[int, int, int]] = []
            for index, begin, end in pieces:
                first, last = starts[index] + begin, starts[index] + end
                seen = range(max(first, wanted[index]), last)
                if len(seen):
                    parts.append((index, seen.start, len(seen)))
                    places += [len(tokens) + position - first for position in seen]
                tokens += streams[index].tokens[first:last]
            rows = [streams[index] for index, _, _ in pieces]
            logits = self._model(
                torch.tensor(tokens, device=self._model.device),
                [end - begin for _, begin, end in pieces],
                cache=cache.rows([PagedRow(pages=s.pages, first_page=s.first_page, n_cached=s.n_cached) for s in rows]),
                logits=places,
            )
            self.n_forwarded += len(tokens)
            for index, begin, end in pieces:
                streams[index].advance(self._pool, end - begin)
            at = 0
            for index, position, n in parts:
                yield index, position, logits[at : at + n]
                at += n

    def _held_cache(self) -> PagedCache:
        assert self._cache is not None
        return self._cache


def _shared_pages(one: Ids, other: Ids) -> int:
    """The full pages with which both begin, of those that leave either a token of its own."""
    most = (min(len(one), len(other)) - 1) // PAGE
    return next((n for n in range(most) if one[n * PAGE : (n + 1) * PAGE] != other[n * PAGE : (n + 1) * PAGE]), most)


def _levels(texts: Sequence[Ids]) -> list[list[Ids]]:
    """The beginnings, in full pages, that at least two of these sorted texts share, and where they part: those that
    build on others in later levels.

    >>> a, b = (1,) * PAGE, (2,) * PAGE
    >>> levels = _levels([a + a + (1,), a + a + (2,), a + b + (1,), b + (1,)])
    >>> [[len(stem) // PAGE for stem in level] for level in levels]
    [[1], [2]]
    """
    stems = {one[: n * PAGE] for one, other in pairwise(texts) if (n := _shared_pages(one, other))}
    levels: list[list[Ids]] = []
    above: list[Ids] = []
    for stem in sorted(stems):
        while above and stem[: len(above[-1])] != above[-1]:
            above.pop()
        if len(above) == len(levels):
            levels.append([])
        levels[len(above)].append(stem)
        above.append(stem)
    return levels


def _likelihood(context: _Context, continuation: Ids) -> Likelihood:
    logprobs = context.logprobs[continuation]
    assert len(logprobs) == len(continuation)
    _check_finite(logprobs)
    return Likelihood(math.fsum(logprobs), context.is_greedy[continuation])


def _check_finite(logprobs: Sequence[float]) -> None:
    if not all(map(math.isfinite, logprobs)):
        raise CirciusError(
            "the model's log-probabilities are not finite: the weights are damaged, or they overflow in this dtype; "
            "try --dtype float32 or bfloat16"
        )
