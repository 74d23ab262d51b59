"""The key-value pairs at the head of a GGUF file, read without the weights and without waiting.

The layout is the GGUF specification's, versions 2 and 3. The `gguf` package's reader makes an array per string and
takes seconds for a vocabulary of fifty thousand; this one takes a fraction of one.
"""

import mmap
import struct
from pathlib import Path

from circius.base.errors import TokenizerError

Value = int | float | bool | str | list["Value"]

_MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def read_gguf_metadata(path: Path, prefix: str = "") -> dict[str, Value]:
    """The pairs whose key starts with `prefix`.

    Raises:
        TokenizerError: the file cannot be read, is no GGUF, or ends before its metadata does.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Cursor(content).pairs(prefix)
    except OSError as error:
        raise TokenizerError(f"{path}: cannot read the file: {error.strerror}") from error
    except (ValueError, struct.error, IndexError) as error:
        raise TokenizerError(f"{path}: not a GGUF file, or damaged in its metadata: {error}") from error


class _Cursor:
    """A place in the file that moves on with each value read."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._at = 0

    def pairs(self, prefix: str) -> dict[str, Value]:
        if self._content[:4] != _MAGIC:
            raise ValueError(f"it starts with {self._content[:4]!r} instead of {_MAGIC!r}")
        self._at = 4
        version, _, count = self._numbers("IQQ")
        if version not in (2, 3):
            raise ValueError(f"GGUF version {version}; 2 and 3 are read")
        found: dict[str, Value] = {}
        for _ in range(count):
            key = self._string()
            (kind,) = self._numbers("I")
            value = self._value(kind)
            if key.startswith(prefix):
                found[key] = value
        return found

    def _value(self, kind: int) -> Value:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array()
        if kind not in _FORMATS:
            raise ValueError(f"value type {kind} at byte {self._at}")
        value: Value = self._numbers(_FORMATS[kind])[0]
        return value

    def _array(self) -> Value:
        kind, count = self._numbers("IQ")
        if kind in (_STRING, _ARRAY):
            self._need(8 * count)
            return [self._value(kind) for _ in range(count)]
        if kind not in _FORMATS:
            raise ValueError(f"array type {kind} at byte {self._at}")
        return list(self._numbers(f"{count}{_FORMATS[kind]}"))

    def _string(self) -> str:
        (size,) = self._numbers("Q")
        self._need(size)
        self._at += size
        return self._content[self._at - size : self._at].decode("utf-8")

    def _numbers(self, form: str) -> tuple[int, ...]:
        numbers = struct.Struct(f"<{form}")
        self._need(numbers.size)
        self._at += numbers.size
        return numbers.unpack_from(self._content, self._at - numbers.size)

    def _need(self, size: int) -> None:
        if self._at + size > len(self._content):
            raise ValueError(f"{size} bytes at byte {self._at} run past its end ({len(self._content)} bytes)")
