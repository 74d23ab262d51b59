"""Token shards: documents as ids in memory-mapped files, and what is known of each.

A folder of shards holds

    meta.json                   tokenizer, sources and their hashes, counts, what begins and ends a document
    PART-00000.tokens.bin       ids, one document after the other; a document is never in two files
    PART.documents.bin          for each document: where it begins, the bytes of its text, the bytes encoding added
    token_bytes.bin             for each id of the vocabulary, the bytes that it adds to a text

where PART is `train` or `heldout`. Ids are uint16, or uint32 for a vocabulary of more than 65,536; all little-endian.
"""

import json
from bisect import bisect_right
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circius.base.errors import InvalidInputError
from circius.text.tokenizer import Tokenizer
from circius.train.fingerprint import begin_id, end_id, fingerprint

FORMAT = "circius token shards"
VERSION = 1
PARTS = ("train", "heldout")
META = "meta.json"
TOKEN_BYTES = "token_bytes.bin"
TOKEN_BYTES_TYPE = np.dtype("<u4")
COLUMNS = 3
"""Of a document: the place of its first id among all of the part's, the bytes of its text, the bytes encoding added."""


def tokens_file(part: str, index: int) -> str:
    """The name of one file of ids.

    >>> tokens_file("train", 3)
    'train-00003.tokens.bin'
    """
    return f"{part}-{index:05d}.tokens.bin"


def documents_file(part: str) -> str:
    """The name of the file that tells where documents begin."""
    return f"{part}.documents.bin"


def id_type(vocab_size: int) -> np.dtype[Any]:
    """The type of an id on disk.

    >>> id_type(32000).itemsize, id_type(131072).itemsize
    (2, 4)
    """
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def token_lengths(tokenizer: Tokenizer) -> NDArray[np.uint32]:
    """For each id of the vocabulary, how many bytes it adds to a text."""
    lengths = (len(tokenizer.token_bytes(token)) for token in range(tokenizer.vocab_size))
    return np.fromiter(lengths, TOKEN_BYTES_TYPE, tokenizer.vocab_size)


def read_meta(folder: Path) -> dict[str, Any]:
    """What a folder of shards says of itself.

    Raises:
        InvalidInputError: it is none, or of a version that is not known.
    """
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidInputError(
            f"{folder}: no {META}, so this is no folder of token shards: make one with `circius data prepare`"
        ) from None
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{folder / META}: cannot be read: {error}") from error
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise InvalidInputError(f"{folder / META}: says nothing of {FORMAT}: make them with `circius data prepare`")
    if meta.get("version") != VERSION:
        raise InvalidInputError(f"{folder / META}: version {meta.get('version')!r}, but {VERSION} is what is read here")
    return meta


class Shards:
    """One part of a folder of shards.

    Raises:
        InvalidInputError: no such folder or part, files that are cut short, or ids of another tokenizer.
    """

    def __init__(self, folder: Path, tokenizer: Tokenizer, part: str = "train") -> None:
        self.folder, self.part = folder, part
        self.meta = read_meta(folder)
        if part not in self.meta["parts"]:
            raise InvalidInputError(f"part {part!r} is not known: {', '.join(self.meta['parts'])} are in {folder}")
        self._check_tokenizer(tokenizer)
        self.begins = self.meta["bos"] is not None
        """Whether documents begin with BOS."""
        counts = self.meta["parts"][part]
        self._shard_starts = [0, *accumulate(counts["shards"])]
        self.documents = self._read_documents(counts["documents"])
        self.starts = np.append(self.documents[:, 0], counts["tokens"])
        """Where each document begins among all ids of the part, and behind the last where it would."""
        self._dtype = id_type(self.meta["vocab_size"])
        for index, n_tokens in enumerate(counts["shards"]):
            self._check_size(tokens_file(part, index), n_tokens * self._dtype.itemsize)

    def __len__(self) -> int:
        return len(self.documents)

    def ids(self, start: int, stop: int) -> NDArray[np.int64]:
        """The ids from `start` to `stop` among all of the part's; both in one document."""
        index = bisect_right(self._shard_starts, start) - 1
        offset = self._shard_starts[index]
        return self._maps[index][start - offset : stop - offset].astype(np.int64)

    @cached_property
    def token_bytes(self) -> NDArray[np.int64]:
        """For each id, how many bytes it adds to a text."""
        self._check_size(TOKEN_BYTES, self.meta["vocab_size"] * TOKEN_BYTES_TYPE.itemsize)
        return np.fromfile(self.folder / TOKEN_BYTES, TOKEN_BYTES_TYPE).astype(np.int64)

    @cached_property
    def _maps(self) -> list[NDArray[Any]]:
        n_shards = len(self._shard_starts) - 1
        return [np.memmap(self.folder / tokens_file(self.part, index), self._dtype, "r") for index in range(n_shards)]

    def _read_documents(self, n_documents: int) -> NDArray[np.int64]:
        name = documents_file(self.part)
        self._check_size(name, n_documents * COLUMNS * 8)
        if not n_documents:
            return np.empty((0, COLUMNS), np.int64)
        return np.memmap(self.folder / name, np.dtype("<i8"), "r", shape=(n_documents, COLUMNS))

    def _check_size(self, name: str, expected: int) -> None:
        file = self.folder / name
        found = file.stat().st_size if file.is_file() else None
        if found != expected:
            state = "is missing" if found is None else f"has {found} bytes, and {expected} are expected"
            raise InvalidInputError(f"{file} {state}: prepare the folder again (`circius data prepare --force`)")

    def _check_tokenizer(self, tokenizer: Tokenizer) -> None:
        found = fingerprint(tokenizer)
        if found != self.meta["tokenizer"]:
            raise InvalidInputError(
                f"{self.folder} holds ids of another tokenizer ({self.meta['tokenizer'][:12]}…) than "
                f"{tokenizer.source} ({found[:12]}…): prepare the texts again with this one"
            )
        ends = (begin_id(tokenizer), end_id(tokenizer))
        if ends != (self.meta["bos"], self.meta["eos"]):
            raise InvalidInputError(
                f"{self.folder} begins and ends documents with {self.meta['bos']} and {self.meta['eos']}, "
                f"{tokenizer.source} with {ends[0]} and {ends[1]}: prepare the texts again"
            )
