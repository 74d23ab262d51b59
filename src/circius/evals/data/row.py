"""Rows of a data file, each field taken out with its type checked and its place told when it is wrong."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from circius.base.errors import DataError
from circius.evals.data import store


class Row:
    """One row and where it stands; every getter raises DataError for a field that is missing or of another type."""

    def __init__(self, fields: Mapping[str, Any], where: str) -> None:
        if not isinstance(fields, Mapping):
            raise DataError(f"{where}: expected fields by name, got {type(fields).__name__}")
        self._fields = fields
        self.where = where

    def text(self, name: str) -> str:
        """A text, perhaps an empty one."""
        return str(self._typed(name, str))

    def text_or_none(self, name: str) -> str | None:
        """A text that is not empty, or None where it is empty, null or not there."""
        return self.text(name) or None if self._fields.get(name) is not None else None

    def whole(self, name: str) -> int:
        """A whole number; a text of digits is one too, because the sets write labels so."""
        found = self._fields.get(name)
        if isinstance(found, str) and found.strip().lstrip("-").isdecimal():
            return int(found)
        return int(self._typed(name, int))

    def truth(self, name: str) -> bool:
        """True or false."""
        return bool(self._typed(name, bool))

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts, perhaps an empty one."""
        found = self._typed(name, list)
        if not all(isinstance(text, str) for text in found):
            raise self.wrong(f"{name} must be a list of texts, got {found!r:.80}")
        return tuple(found)

    def lists(self, name: str) -> tuple[tuple[str, ...], ...]:
        """A list of lists of texts."""
        found = self._typed(name, list)
        return tuple(
            Row({name: texts}, f"{self.where}, {name} {place}").texts(name) for place, texts in enumerate(found)
        )

    def row(self, name: str) -> "Row":
        """A row inside this one."""
        return Row(self._typed(name, dict), f"{self.where}, {name}")

    def rows(self, name: str) -> list["Row"]:
        """A list of rows inside this one."""
        found = self._typed(name, list)
        return [Row(fields, f"{self.where}, {name} {place}") for place, fields in enumerate(found)]

    def index(self, name: str, n: int, *, first: int = 0) -> int:
        """A place among `n` choices, counted from 0 however the file counts.

        first: the number that the file gives the first choice.
        """
        place = self.whole(name) - first
        if not 0 <= place < n:
            raise self.wrong(f"{name} must be {first} to {first + n - 1}, got {place + first}")
        return place

    def wrong(self, complaint: str) -> DataError:
        """The error to raise about this row."""
        return DataError(f"{self.where}: {complaint}")

    def _typed(self, name: str, kind: type) -> Any:
        found = self._fields.get(name)
        if not isinstance(found, kind) or (kind is int and isinstance(found, bool)):
            raise self.wrong(f"{name} must be {kind.__name__}, got {found!r:.80}")
        return found


def json_lines(path: str, home: Path | None = None) -> Iterator[Row]:
    """The rows of a .jsonl or .jsonl.gz part.

    Raises:
        DataError: the part is not there or damaged, or a line is no JSON object.
    """
    # Not splitlines: texts hold characters (U+2028) that it takes for the end of a line, and JSON does not.
    for number, line in enumerate(store.read_text(path, home).split("\n"), start=1):
        if line:
            yield Row(_parsed(line, f"{path} line {number}"), f"{path} line {number}")


def json_file(path: str, home: Path | None = None) -> Any:
    """What a .json part holds.

    Raises:
        DataError: the part is not there or damaged, or no JSON.
    """
    return _parsed(store.read_text(path, home), path)


def csv_rows(path: str, home: Path | None = None) -> Iterator[Row]:
    """The rows of a .csv part with a header; cells may hold line breaks.

    Raises:
        DataError: the part is not there or damaged, or a row has not as many cells as the header.
    """
    text = store.read_text(path, home).removeprefix("\ufeff")
    for number, fields in enumerate(csv.DictReader(io.StringIO(text, newline="")), start=1):
        if None in fields or None in fields.values():
            raise DataError(f"{path} row {number}: not as many cells as the header has names")
        yield Row(fields, f"{path} row {number}")


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({error})") from error
