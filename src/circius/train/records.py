"""Records out of data files, one after the other, each with the line where it begins."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from circius.base.errors import InvalidInputError

_GZIP_MAGIC = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_ONE_OBJECT = 'an object such as {"messages": [...]}'
_SPREAD_OUT = (
    f"an object that goes on over several lines: write each on a line of its own (jsonl), as {_ONE_OBJECT}, or all of "
    "them as one array [...]"
)


@dataclass(frozen=True, order=True)
class Place:
    """A line of a file, counted from 1; of a parquet file, the row; 0 means the file as a whole.

    >>> str(Place(Path("chat.jsonl"), 7))
    'chat.jsonl:7'
    """

    file: Path
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else str(self.file)


@dataclass(frozen=True)
class Problem:
    """What is wrong at a place, what is allowed, and what to do."""

    place: Place
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


@dataclass(frozen=True)
class Record:
    """One object of a file. `raw` is its own line, where it has one."""

    place: Place
    fields: dict[str, Any]
    raw: str | None = None


OnProblem = Callable[[Problem], None]


def refuse(problem: Problem) -> NoReturn:
    """What is done with a problem where nothing else is said.

    Raises:
        InvalidInputError: always.
    """
    raise InvalidInputError(f"{problem} (`circius data check` lists every problem of a file)")


def read_records(file: Path, on_problem: OnProblem = refuse) -> Iterator[Record]:
    """The objects in a jsonl file, a JSON array or a parquet file; jsonl and JSON may be gzipped.

    The content tells which it is, not the name. Empty lines are passed over. A record that cannot be read is given to
    `on_problem` and left out.

    Raises:
        InvalidInputError: the file cannot be read at all; or what `on_problem` raises.
    """
    with opened(file) as stream:
        start = stream.read(4)
    if start == b"PAR1":
        yield from _parquet_rows(file)
        return
    with opened(file) as stream:
        first = _first_byte(stream)
    if first == b"[":
        yield from _array_items(file, on_problem)
    else:
        yield from _lines(file, on_problem)


@contextmanager
def opened(file: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked if it is gzipped.

    Raises:
        InvalidInputError: there is no such file, it cannot be read, or it is damaged.
    """
    try:
        with file.open("rb") as stream:
            is_packed = stream.read(2) == _GZIP_MAGIC
            stream.seek(0)
            if not is_packed:
                yield stream
                return
            with gzip.open(stream) as unpacked:
                yield unpacked  # type: ignore[misc]  # a GzipFile reads as any binary stream does
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InvalidInputError(f"{file}: the gzip file is damaged or cut short ({error}); fetch it again") from error
    except OSError as error:
        raise InvalidInputError(f"cannot read {file}: {error.strerror or error}") from error


def decoded(raw: bytes) -> str:
    """The text of some bytes.

    >>> decoded(b"fa\\xe7ade")
    Traceback (most recent call last):
    circius.base.errors.InvalidInputError: not UTF-8: byte 0xe7 at offset 2; convert the file to UTF-8

    Raises:
        InvalidInputError: they are not UTF-8.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"not UTF-8: byte 0x{raw[error.start]:02x} at offset {error.start}; convert the file to UTF-8"
        ) from None


def _first_byte(stream: BinaryIO) -> bytes:
    """The first byte that is not white space, or nothing."""
    while block := stream.read(4096):
        if found := block.removeprefix(_BYTE_ORDER_MARK).lstrip():
            return found[:1]
    return b""


def _lines(file: Path, on_problem: OnProblem) -> Iterator[Record]:
    is_first = True
    with opened(file) as stream:
        for number, line in enumerate(stream, start=1):
            raw = line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
            if not raw.strip():
                continue
            place = Place(file, number)
            if is_first and raw.strip() == b"{":
                on_problem(Problem(place, _SPREAD_OUT))
                return
            is_first = False
            try:
                text = decoded(raw).strip()
                value = json.loads(text)
            except InvalidInputError as error:
                on_problem(Problem(place, str(error)))
            except (ValueError, RecursionError) as error:
                on_problem(Problem(place, f"not JSON: {_why(error)}; a line of a jsonl file is {_ONE_OBJECT}"))
            else:
                if isinstance(value, dict):
                    yield Record(place, value, text)
                else:
                    on_problem(Problem(place, _no_object(value)))


def _array_items(file: Path, on_problem: OnProblem) -> Iterator[Record]:
    """The objects of a JSON array, with the line where each begins; a fault in the JSON itself ends the file."""
    with opened(file) as stream:
        raw = stream.read().removeprefix(_BYTE_ORDER_MARK)
    try:
        text = decoded(raw)
    except InvalidInputError as error:
        on_problem(Problem(Place(file, 1), str(error)))
        return
    line, counted = 1, 0
    try:
        for at, value in _items(text):
            line, counted = line + text.count("\n", counted, at), at
            if isinstance(value, dict):
                yield Record(Place(file, line), value)
            else:
                on_problem(Problem(Place(file, line), _no_object(value)))
    except json.JSONDecodeError as error:
        why = f"not JSON: {_why(error)}; nothing after it can be read: mend the array there"
        on_problem(Problem(Place(file, error.lineno), why))
    except InvalidInputError:  # what `on_problem` raised
        raise
    except (ValueError, RecursionError) as error:
        on_problem(Problem(Place(file, line), f"not JSON: {_why(error)}; nothing after it can be read"))


def _items(text: str) -> Iterator[tuple[int, Any]]:
    """Where each value of the array begins, and the value.

    Raises:
        json.JSONDecodeError: it is no array, or not a whole one.
    """
    decoder = json.JSONDecoder()
    at = _past_space(text, _past_space(text, 0) + 1)
    if text[at : at + 1] != "]":
        while True:
            value, end = decoder.raw_decode(text, at)
            yield at, value
            at = _past_space(text, end)
            if text[at : at + 1] != ",":
                break
            at = _past_space(text, at + 1)
    if text[at : at + 1] != "]":
        raise json.JSONDecodeError("a comma or the end of the array, ], is expected", text, at)
    if _past_space(text, at + 1) < len(text):
        raise json.JSONDecodeError("something follows the end of the array", text, _past_space(text, at + 1))


def _past_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def kind_of(value: Any) -> str:
    """What a value of JSON is, in words.

    >>> kind_of([1]), kind_of(None)
    ('a list', 'null')
    """
    words = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return words.get(type(value), "a number")


def _no_object(value: Any) -> str:
    return f"{kind_of(value)}, where {_ONE_OBJECT} is expected"


def _why(error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else "a number of too many digits"


def _parquet_rows(file: Path) -> Iterator[Record]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InvalidInputError(
            f"{file} is a parquet file, which pyarrow reads: install it (pip install 'circius[parquet]'), or convert "
            "the file to jsonl"
        ) from None
    try:
        table = pyarrow.parquet.ParquetFile(file)
        batches = (row for batch in table.iter_batches(batch_size=1024) for row in batch.to_pylist())
        for number, row in enumerate(batches, start=1):
            yield Record(Place(file, number), row)
    except (pyarrow.ArrowException, OSError) as error:
        raise InvalidInputError(f"{file}: damaged, or no parquet file: {error}") from error
