"""A file of JSON lines that a long run adds to, and goes on with after a kill.

The first line says what the lines belong to. A line is the system's as soon as `append` returns; one that a killed
process left unfinished is cut off when the file is opened again.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from circius.base.errors import InvalidInputError, StorageError


class Journal:
    """Used as a context: inside, `rows` are the lines that earlier runs have left, and `append` adds one.

    path: the file; it is made if it is not there. header: what its lines belong to, such as a model and its settings.

    Raises:
        InvalidInputError: the file belongs to something else, or is no journal; the error names the difference.
        StorageError: another process has it open, or it cannot be written.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self._path = path
        self._header = json.loads(json.dumps(header))  # as it will be read back
        self._file: BinaryIO | None = None
        self.rows: list[dict[str, Any]] = []

    def __enter__(self) -> "Journal":
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a+b")
        except OSError as error:
            raise StorageError(f"cannot write {self._path}: {error.strerror}") from None
        try:
            self._lock()
            self._take_over()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._file is not None
        self._file.close()

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds a line."""
        assert self._file is not None, "a journal is written inside its context"
        raw = json.dumps(row, ensure_ascii=False).encode() + b"\n"
        try:
            self._file.write(raw)
            self._file.flush()  # it is the system's now, and outlives this process
        except OSError as error:
            raise StorageError(f"cannot write {self._path}: {error.strerror}") from None
        self.rows.append(dict(row))

    def _lock(self) -> None:
        try:
            import fcntl
        except ModuleNotFoundError:  # Windows: two runs at once are the user's affair
            return
        assert self._file is not None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StorageError(f"another run is writing {self._path}") from None

    def _take_over(self) -> None:
        assert self._file is not None
        self._file.seek(0)
        whole = 0
        for number, raw in enumerate(self._file):
            if not raw.endswith(b"\n"):
                break
            row = _object(raw)
            if row is None:
                raise InvalidInputError(f"{self._path}:{number + 1} is not a JSON object: give another file")
            if number == 0:
                self._check(row)
            else:
                self.rows.append(row)
            whole += len(raw)
        self._file.truncate(whole)
        self._file.seek(0, os.SEEK_END)
        if whole == 0:
            self.append(self._header)
            self.rows.clear()

    def _check(self, found: Mapping[str, Any]) -> None:
        for key in {**self._header, **found}:
            if found.get(key) != self._header.get(key):
                raise InvalidInputError(
                    f"{self._path} belongs to another run: its {key} is {found.get(key)!r:.100}, this one's "
                    f"{self._header.get(key)!r:.100}; give another file, or delete that one"
                )


def read_journal(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The header and the lines of a journal, without touching it; an unfinished last line is left out.

    Raises:
        InvalidInputError: it cannot be read, or is no journal.
    """
    try:
        raw_lines = path.read_bytes().split(b"\n")[:-1]
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}") from None
    rows = [_object(raw) for raw in raw_lines]
    for number, row in enumerate(rows, start=1):
        if row is None:
            raise InvalidInputError(f"{path}:{number} is not a JSON object")
    found = [row for row in rows if row is not None]
    if not found:
        raise InvalidInputError(f"{path} is empty")
    return found[0], found[1:]


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(raw)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
