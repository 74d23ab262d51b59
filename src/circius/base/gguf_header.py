"""The header of a GGUF file: its metadata and where its tensors lie. Standard library only.

The `gguf` package has a reader too, but it makes an array object of every string of the vocabulary (seconds for
each start), and a damaged length sends it into a loop without end. Here every length is checked against the file's
size before it is believed. Layout (little-endian): "GGUF", version, number of tensors, number of metadata pairs; the
pairs; the tensor entries; padding; the values. Source: docs/gguf.md of the ggml repository.
"""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from circius.base.errors import CheckpointError

Value = int | float | bool | str | list["Value"]

_VERSIONS = (2, 3)
_SCALARS = MappingProxyType({0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"})
_FLOAT32, _STRING, _ARRAY = 6, 8, 9
_MAX_DIMS = 4
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class TensorEntry:
    """One tensor as the header describes it: `shape` as a matrix is read (rows first), `kind` as ggml numbers types."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int  # from the start of the values


@dataclass(frozen=True)
class Header:
    """What a GGUF file says before its values begin at byte `start`; values are padded to `alignment` bytes."""

    metadata: Mapping[str, Value]
    tensors: tuple[TensorEntry, ...]
    start: int
    alignment: int
    file_bytes: int


def read_gguf_header(file: Path) -> Header:
    """The header of `file`. Numbers, strings and lists of them come as Python's own.

    Raises:
        CheckpointError: the file is truncated, damaged, or no GGUF file of version 2 or 3.
    """
    try:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Parser(file, content).parse()
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise CheckpointError(f"{file}: cannot be read: {error}") from error


def _as_written(number: float) -> float:
    """The short decimal that a float32 came from, if there is one.

    >>> _as_written(9.999999747378752e-06)
    1e-05
    """
    short = float(f"{number:.7g}")
    try:
        (nearest,) = struct.unpack("<f", struct.pack("<f", short))
    except OverflowError:
        return number
    return short if nearest == number else number


class _Parser:
    """Walks through the header from front to back."""

    def __init__(self, file: Path, content: mmap.mmap) -> None:
        self._file, self._content, self._at = file, content, 0

    def parse(self) -> Header:
        magic = self._take(4)
        if magic != b"GGUF":
            raise CheckpointError(f"{self._file}: no GGUF file: it begins with {magic!r}, not with b'GGUF'")
        version = self._scalar("I")
        if version not in _VERSIONS:
            raise CheckpointError(
                f"{self._file}: GGUF version {version}; circius reads little-endian files of versions 2 and 3"
            )
        n_tensors, n_pairs = self._scalar("Q"), self._scalar("Q")
        metadata = self._metadata(n_pairs)
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            raise self._damaged(f"general.alignment is {alignment!r}, not a power of two")
        tensors = tuple(self._tensor(alignment) for _ in range(n_tensors))
        return Header(
            metadata=MappingProxyType(metadata),
            tensors=tensors,
            start=-(-self._at // alignment) * alignment,
            alignment=alignment,
            file_bytes=len(self._content),
        )

    def _metadata(self, n_pairs: int) -> dict[str, Value]:
        metadata: dict[str, Value] = {}
        for _ in range(n_pairs):
            key = self._string("a metadata key")
            if key in metadata:
                raise self._damaged(f"the metadata key {key!r} appears twice")
            metadata[key] = self._value(key, self._scalar("I"))
        return metadata

    def _tensor(self, alignment: int) -> TensorEntry:
        name = self._string("a tensor name")
        n_dims = self._scalar("I")
        if not 1 <= n_dims <= _MAX_DIMS:
            raise self._damaged(f"the tensor {name!r} has {n_dims} dimensions; 1 to {_MAX_DIMS} are possible")
        dims = struct.unpack(f"<{n_dims}Q", self._take(8 * n_dims))
        kind, offset = self._scalar("I"), self._scalar("Q")
        if offset % alignment:
            raise self._damaged(f"the tensor {name!r} starts at {offset}, not a multiple of {alignment}")
        return TensorEntry(name=name, shape=tuple(reversed(dims)), kind=kind, offset=offset)

    def _value(self, key: str, kind: int) -> Value:
        if kind == _STRING:
            return self._string(key)
        if kind == _ARRAY:
            return self._array(key)
        if kind not in _SCALARS:
            raise self._damaged(f"{key} is of the unknown type {kind}")
        return self._number(kind)

    def _array(self, key: str) -> list[Value]:
        kind, length = self._scalar("I"), self._scalar("Q")
        if kind == _STRING:
            return self._strings(key, length)
        if kind not in _SCALARS:
            raise self._damaged(f"{key} is an array of the type {kind}, which circius does not read")
        size = struct.calcsize(_SCALARS[kind])
        return list(struct.unpack(f"<{length}{_SCALARS[kind]}", self._take(length * size)))

    def _strings(self, what: str, length: int) -> list[Value]:
        """A vocabulary's worth of strings: `_string` as one loop, because every start of the program waits for it."""
        content, at, n_bytes = self._content, self._at, _LENGTH.unpack_from
        found: list[Value] = []
        try:
            for _ in range(length):
                begin = at + _LENGTH.size
                at = begin + n_bytes(content, at)[0]
                found.append(content[begin:at].decode("utf-8"))
        except (struct.error, OverflowError) as error:  # a length, or its place, behind the end of the file
            raise self._damaged(f"{what} promises {length} strings, of which {len(found)} are there") from error
        except UnicodeDecodeError as error:
            raise self._damaged(f"string {len(found)} of {what} is not UTF-8: {error.object[:40]!r}") from error
        if at > len(content):
            raise self._damaged(f"{what} promises {length} strings that end at byte {at} of {len(content)}")
        self._at = at
        return found

    def _string(self, what: str) -> str:
        raw = self._take(self._scalar("Q"))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._damaged(f"{what} is not UTF-8: {raw[:40]!r}") from error

    def _number(self, kind: int) -> Value:
        number: int | float | bool = struct.unpack(f"<{_SCALARS[kind]}", self._take(struct.calcsize(_SCALARS[kind])))[0]
        return _as_written(number) if kind == _FLOAT32 else number

    def _scalar(self, code: Literal["I", "Q"]) -> int:
        number: int = struct.unpack(f"<{code}", self._take(struct.calcsize(code)))[0]
        return number

    def _take(self, n_bytes: int) -> bytes:
        left = len(self._content) - self._at
        if n_bytes > left:
            raise self._damaged(f"{n_bytes} bytes are promised at byte {self._at}, where only {left} are left")
        self._at += n_bytes
        return self._content[self._at - n_bytes : self._at]

    def _damaged(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self._file}: the GGUF header is truncated or damaged: {what}")
