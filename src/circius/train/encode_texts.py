"""Many texts to ids, by several processes if there is much to do; they come out in the order they went in."""

import multiprocessing
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from circius.base.errors import CirciusError, InvalidInputError
from circius.text.load import load_tokenizer
from circius.text.tokenizer import Tokenizer
from circius.train.shards import token_lengths
from circius.train.texts import Document

GROUP_CHARACTERS = 1 << 18
"""Documents are handed over in groups of about this much text."""
_GROUPS_AHEAD = 3
"""How many groups wait for each process: enough to keep it busy, no more than that in memory."""


@dataclass(frozen=True)
class Encoded:
    """A document and its ids, without BOS and EOS."""

    document: Document
    ids: NDArray[np.uint32]
    n_bytes: int
    """Of the text, in UTF-8."""
    n_added: int
    """How many bytes more the ids spell: the space that some tokenizers put in front."""


def encoded_in_order(documents: Iterable[Document], tokenizer: Tokenizer, n_workers: int = 1) -> Iterator[Encoded]:
    """The documents with their ids, in their order.

    Raises:
        InvalidInputError: a text that the tokenizer cannot spell, or would change; the error names its place.
        CirciusError: a process that encodes came to an end before its work did.
    """
    if n_workers == 1:
        encoder = _Encoder(tokenizer)
        yield from (encoder(document) for document in documents)
        return
    context = multiprocessing.get_context("spawn")  # a forked process would inherit locks that torch's threads hold
    try:
        with ProcessPoolExecutor(n_workers, context, _begin_work, (tokenizer.source,)) as pool:
            waiting: deque[Future[list[Encoded]]] = deque()
            for group in _groups(documents):
                waiting.append(pool.submit(_encode_group, group))
                if len(waiting) > n_workers * _GROUPS_AHEAD:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
    except BrokenProcessPool as error:
        raise CirciusError(
            "a process that encodes texts came to an end, perhaps for want of memory; try again with --jobs 1"
        ) from error


class _Encoder:
    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._lengths = token_lengths(tokenizer)

    def __call__(self, document: Document) -> Encoded:
        try:
            ids = np.array(self._tokenizer.encode(document.text), np.uint32)
        except CirciusError as error:
            raise InvalidInputError(f"{document.place}: {error}") from None
        n_bytes = len(document.text.encode())
        n_added = int(len(ids) > 0 and self._tokenizer.opens_with_prefix_space(int(ids[0])))
        if int(self._lengths[ids].sum()) != n_bytes + n_added:
            raise InvalidInputError(
                f"{document.place}: {self._tokenizer.source} does not give the text back as it is, so bits per byte "
                "could not be told: choose a tokenizer with byte fallback that changes no characters"
            )
        return Encoded(document, ids, n_bytes, n_added)


def _groups(documents: Iterable[Document]) -> Iterator[list[Document]]:
    group: list[Document] = []
    size = 0
    for document in documents:
        group.append(document)
        size += len(document.text)
        if size >= GROUP_CHARACTERS:
            yield group
            group, size = [], 0
    if group:
        yield group


_encoder: _Encoder | None = None
"""The one of this process, where it is one of several."""


def _begin_work(source: Path) -> None:
    global _encoder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that waits for this one ends it
    _encoder = _Encoder(load_tokenizer(source))


def _encode_group(group: list[Document]) -> list[Encoded]:
    assert _encoder is not None
    return [_encoder(document) for document in group]
