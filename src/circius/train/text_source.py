"""Texts to learn from: the documents of token shards, cut into pieces."""

from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from circius.base.errors import InvalidInputError
from circius.text.tokenizer import Tokenizer
from circius.train.example import Example
from circius.train.shards import Shards


class TextSource:
    """Documents in pieces of at most `seq_len` ids, in the order of the documents.

    A piece begins with the last id of the piece before it, which is then not learnt again: so every id of a document
    but its first is predicted exactly once, and no piece has fewer than two ids. A document's first id is its BOS,
    where the tokenizer has one.

    Raises:
        InvalidInputError: `seq_len` below 2, a folder without documents in this part, or what `Shards` refuses.
    """

    def __init__(self, folder: Path, tokenizer: Tokenizer, *, seq_len: int, part: str = "train") -> None:
        if seq_len < 2:
            raise InvalidInputError(
                f"seq_len must be 2 or more, got {seq_len}: something is given, something predicted"
            )
        self._shards = Shards(folder, tokenizer, part)
        if not len(self._shards):
            raise InvalidInputError(
                f"{folder}: no documents in the part {part!r}; see --holdout of `circius data prepare`"
            )
        self.seq_len = seq_len
        self._name = f"{folder.name}/{part}"
        lengths = np.diff(self._shards.starts)
        self._first_piece = np.concatenate([[0], np.cumsum(-(-(lengths - 1) // (seq_len - 1)))])

    @property
    def name(self) -> str:
        return self._name

    @property
    def n_documents(self) -> int:
        return len(self._shards)

    def __len__(self) -> int:
        return int(self._first_piece[-1])

    def n_tokens(self, index: int) -> int:
        return int(self._lengths[index])

    def example(self, index: int) -> Example:
        ids = self._ids(index)
        learnt = np.ones(len(ids), np.bool_)
        learnt[0] = False
        return Example(ids, learnt)

    def n_bytes(self, index: int) -> int:
        """The bytes of text (UTF-8) that the learnt ids of a piece spell, for bits per byte.

        bits per byte = summed negative log-likelihood / ln 2 / bytes. Over all pieces these are the bytes of the
        documents, to the byte; what the ends of documents cost is counted, and adds no bytes.
        """
        document, start = self._place(index)
        spelt = int(self._shards.token_bytes[self._ids(index)[1:]].sum())
        is_first = start == self._shards.starts[document]
        return spelt - int(self._shards.documents[document, 2]) if is_first and self._shards.begins else spelt

    @cached_property
    def _lengths(self) -> NDArray[np.int32]:
        """Of every piece: `seq_len`, but for the last of each document."""
        lengths = np.full(len(self), self.seq_len, np.int32)
        n_pieces = np.diff(self._first_piece)
        lengths[self._first_piece[1:] - 1] = np.diff(self._shards.starts) - (n_pieces - 1) * (self.seq_len - 1)
        return lengths

    def _ids(self, index: int) -> NDArray[np.int64]:
        _, start = self._place(index)
        return self._shards.ids(start, start + self.n_tokens(index))

    def _place(self, index: int) -> tuple[int, int]:
        """The document that a piece is of, and where it begins among all ids."""
        document = int(np.searchsorted(self._first_piece, index, side="right")) - 1
        n_before = index - int(self._first_piece[document])
        return document, int(self._shards.starts[document]) + n_before * (self.seq_len - 1)
