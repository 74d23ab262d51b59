"""The data sets on disk: where a file is, and its content, which is checked every time it is read."""

import gzip
import hashlib
import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

from circius.base.errors import DataError
from circius.evals.data.catalogue import Part, find_part
from circius.weights.home import circius_home
from circius.weights.target import new_file


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What is known of a file in the store: its checksum, and whether that is the one circius knows.

    Where it is not, somebody brought other data deliberately: say so beside every score.
    """

    sha256: str
    is_known: bool


def eval_home() -> Path:
    """Where the data sets lie: CIRCIUS_HOME/eval; it need not exist."""
    return circius_home() / "eval"


def holds(path: str, home: Path | None = None) -> bool:
    """Whether a part is in the store, by its name alone; reading it will tell whether it is whole."""
    return ((home or eval_home()) / path).is_file()


def read(path: str, home: Path | None = None) -> bytes:
    """The content of a part, for .gz what is inside, checked against its checksum.

    Raises:
        DataError: it is not there, cannot be read, or is not what it should be.
    """
    part, folder = find_part(path), home or eval_home()
    file = folder / path
    if not file.is_file():
        raise DataError(f"{path} is not in {folder}: run `circius data eval {part.set_name}`")
    content = content_of(file)
    found = digest(content)
    if found not in (part.sha256, _accepted(file)):
        expected = f"{part.sha256[:12]}..." if part.sha256 else "none that circius knows"
        raise DataError(
            f"{file} is not what it should be (sha256 {found[:12]}..., expected {expected}): delete it, then run "
            f"`circius data eval {part.set_name}`"
        )
    return content


def read_text(path: str, home: Path | None = None) -> str:
    """The content of a part that is text.

    Raises:
        DataError: as `read`, or it is not UTF-8.
    """
    try:
        return read(path, home).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: byte at offset {error.start}") from error


def stored(path: str, home: Path | None = None) -> Stored:
    """The checksum of a part as it lies in the store, for a report.

    Raises:
        DataError: as `read`.
    """
    sha256 = digest(read(path, home))
    return Stored(sha256=sha256, is_known=sha256 == find_part(path).sha256)


def is_whole(part: Part, home: Path) -> bool:
    """Whether a part is in the store and passes its check."""
    try:
        read(part.path, home)
    except DataError:
        return False
    return True


def write(part: Part, content: bytes, home: Path, *, accept_changed: bool) -> None:
    """Puts a part into the store, all of it or nothing.

    accept_changed: take content that circius does not know, and remember that somebody wanted it so.

    Raises:
        DataError: the content is not what it should be, and that was not accepted.
        StorageError: it cannot be written.
    """
    found = digest(content)
    if found != part.sha256:
        if not accept_changed:
            raise DataError(
                f"{part.path} has sha256 {found}, expected {part.sha256 or 'none: circius knows no checksum of it'}; "
                "take it nevertheless with --accept-changed, and every score will say so"
            )
        _write_note(home / part.path, found)
    packed = gzip.compress(content, mtime=0) if part.path.endswith(".gz") else content
    with new_file(home / part.path, n_bytes=len(packed), overwrite=True) as temporary:
        temporary.write_bytes(packed)


def content_of(file: Path) -> bytes:
    """The bytes of a file, for .gz what is inside.

    Raises:
        DataError: it cannot be read, or is no gzip file.
    """
    try:
        raw = file.read_bytes()
        return gzip.decompress(raw) if file.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} cannot be read: {error}") from error


def digest(content: bytes) -> str:
    """Its sha256, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True, kw_only=True)
class _Note:
    """What lies beside a file whose content was accepted although circius does not know it."""

    accepted_sha256: str


def _note_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.accepted.json")


def _write_note(file: Path, sha256: str) -> None:
    text = json.dumps(asdict(_Note(accepted_sha256=sha256))) + "\n"
    with new_file(_note_of(file), n_bytes=len(text), overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _accepted(file: Path) -> str | None:
    note = _note_of(file)
    try:
        return _Note(**json.loads(note.read_text(encoding="utf-8"))).accepted_sha256 if note.is_file() else None
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{note} is damaged ({error}): delete it and fetch the set again") from error
