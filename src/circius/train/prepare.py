"""Texts to token shards: read twice, never all in memory, all or nothing on disk."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from circius.base.errors import InvalidInputError
from circius.text.tokenizer import Tokenizer
from circius.train import shards
from circius.train.encode_texts import Encoded, encoded_in_order
from circius.train.fingerprint import begin_id, end_id, fingerprint
from circius.train.records import OnProblem, refuse
from circius.train.texts import Document, read_documents, text_files, text_hash
from circius.weights.target import new_folder

SHARD_TOKENS = 2**28
"""A file of ids is closed when it holds this many or more."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How texts are found in files; see `read_documents`. `holdout` is the share of documents that is kept apart."""

    field: str | None = None
    separator: str | None = None
    holdout: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.holdout < 1:
            raise InvalidInputError(f"holdout must be from 0 to below 1, the share to keep apart, got {self.holdout}")

    def documents(self, files: Iterable[Path], on_problem: OnProblem = refuse) -> Iterator[Document]:
        """The documents of some files, one file after the other."""
        reads = (
            read_documents(file, field=self.field, separator=self.separator, on_problem=on_problem) for file in files
        )
        return chain.from_iterable(reads)

    def is_held_out(self, hashed: int) -> bool:
        """Whether a text of that hash is kept apart."""
        return hashed < self.holdout * 2**64


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What is in a folder of shards; `was_there` if it had been made of the same texts before, and was left alone."""

    folder: Path
    meta: dict[str, Any]
    was_there: bool = False

    def count(self, part: str, what: str) -> int:
        """The `documents`, `tokens` or `bytes` of a part."""
        return int(self.meta["parts"][part][what])


@dataclass(frozen=True)
class _Scan:
    """The first reading: what there is, before any of it is encoded."""

    n_documents: int
    n_bytes: int
    n_held_out: int
    n_repeated: int


def prepare(
    paths: Sequence[Path],
    tokenizer: Tokenizer,
    target: Path,
    *,
    reading: Reading | None = None,
    n_workers: int = 1,
    overwrite: bool = False,
    on_progress: Callable[[int, int], object] | None = None,
) -> Prepared:
    """Writes the documents of text files as a folder of token shards.

    A document is BOS (where prompts have one), its ids, EOS. Which documents are held out is decided by a hash of their
    text: the same text always lands on the same side, in whatever company. A folder that holds exactly this already is
    left alone.

    on_progress: called with the bytes of text encoded and the bytes there are in all.
    n_workers: processes that encode; the files come out the same.
    overwrite: write in any case, in the place of what is there, be it of the same texts.

    Raises:
        InvalidInputError: a file or a document that cannot be read, no documents, or none to hold out.
        TokenizerError: the tokenizer names no token that ends a text.
        StorageError: `target` is in the way, or cannot be written.
    """
    reading = reading or Reading()
    files = text_files(paths)
    meta = {
        "format": shards.FORMAT,
        "version": shards.VERSION,
        "tokenizer": fingerprint(tokenizer),
        "vocab_size": tokenizer.vocab_size,
        "bos": begin_id(tokenizer),
        "eos": end_id(tokenizer),
        **asdict(reading),
        "sources": [_described(file) for file in files],
    }
    if not overwrite and (before := _made_before(target, meta)) is not None:
        return Prepared(folder=target, meta=before, was_there=True)
    scan = _scan(files, reading)
    n_bytes = (
        scan.n_bytes // 2 * shards.id_type(tokenizer.vocab_size).itemsize
    )  # an id is seldom under two bytes of text
    with new_folder(target, n_bytes=n_bytes, overwrite=overwrite) as folder, ExitStack() as stack:
        parts = {part: stack.enter_context(_Part(folder, part, tokenizer)) for part in shards.PARTS}
        n_done = 0
        for encoded in encoded_in_order(reading.documents(files), tokenizer, n_workers):
            is_held_out = reading.is_held_out(text_hash(encoded.document.text))
            parts["heldout" if is_held_out else "train"].add(encoded)
            n_done += encoded.n_bytes
            if on_progress is not None:
                on_progress(n_done, scan.n_bytes)
        meta |= {"repeated": scan.n_repeated, "parts": {name: part.close() for name, part in parts.items()}}
        shards.token_lengths(tokenizer).tofile(folder / shards.TOKEN_BYTES)
        (folder / shards.META).write_text(json.dumps(meta, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return Prepared(folder=target, meta=meta)


class _Part:
    """One part of the folder while it is written; documents go straight to disk."""

    def __init__(self, folder: Path, name: str, tokenizer: Tokenizer) -> None:
        self._folder, self._name = folder, name
        self._dtype = shards.id_type(tokenizer.vocab_size)
        self._frame = begin_id(tokenizer), end_id(tokenizer)
        self._documents = (folder / shards.documents_file(name)).open("wb")
        self._tokens = (folder / shards.tokens_file(name, 0)).open("wb")
        self._shards = [0]
        self._n_documents = self._n_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._documents.close()
        self._tokens.close()

    def add(self, encoded: Encoded) -> None:
        if self._shards[-1] >= SHARD_TOKENS:
            self._tokens.close()
            self._tokens = (self._folder / shards.tokens_file(self._name, len(self._shards))).open("wb")
            self._shards.append(0)
        row = [sum(self._shards), encoded.n_bytes, encoded.n_added]
        self._documents.write(np.array(row, np.dtype("<i8")).tobytes())
        ids = self._framed(encoded.ids)
        self._tokens.write(ids.tobytes())
        self._shards[-1] += len(ids)
        self._n_documents += 1
        self._n_bytes += encoded.n_bytes

    def close(self) -> dict[str, Any]:
        """What the meta says of this part, all of which is written now."""
        self.__exit__()
        n_tokens = sum(self._shards)
        return {"documents": self._n_documents, "tokens": n_tokens, "bytes": self._n_bytes, "shards": self._shards}

    def _framed(self, ids: NDArray[np.uint32]) -> NDArray[Any]:
        begin, end = self._frame
        framed = np.empty(len(ids) + 1 + (begin is not None), self._dtype)
        if begin is not None:
            framed[0] = begin
        framed[-1 - len(ids) : -1] = ids
        framed[-1] = end
        return framed


def _scan(files: Sequence[Path], reading: Reading) -> _Scan:
    n_bytes = 0
    hashes: list[int] = []
    for document in reading.documents(files):
        hashes.append(text_hash(document.text))
        n_bytes += len(document.text.encode())
    if not hashes:
        raise InvalidInputError(f"{', '.join(map(str, files))}: no text in them")
    n_held_out = sum(map(reading.is_held_out, hashes))
    if reading.holdout and not 0 < n_held_out < len(hashes):
        raise InvalidInputError(
            f"{n_held_out} of {len(hashes)} documents would be held out with holdout={reading.holdout}: choose another "
            "share, or cut the texts into more documents"
        )
    return _Scan(len(hashes), n_bytes, n_held_out, len(hashes) - len(np.unique(np.array(hashes, np.uint64))))


def _described(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"name": file.name, "bytes": file.stat().st_size, "sha256": digest}


def _made_before(target: Path, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """What a folder says of itself, if it was made of the same texts in the same way."""
    if not (target / shards.META).is_file():
        return None
    found = shards.read_meta(target)
    return found if all(found.get(key) == value for key, value in wanted.items()) else None
