"""Documents out of text files, one after the other: plain text, jsonl, JSON arrays and parquet; text also gzipped."""

import codecs
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from circius.base.errors import InvalidInputError
from circius.train.records import OnProblem, Place, Problem, kind_of, opened, read_records, refuse

TEXT_SUFFIXES = (".txt", ".text", ".md")
RECORD_SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet")
TEXT_FIELDS = ("text", "content")
"""The keys under which a record's text is looked for, in this order."""

MAX_DOCUMENT_BYTES = 32 * 2**20
"""A document is encoded as a whole, for which this much is enough."""

_BLOCK = 1 << 20
_KNOWN_SEPARATORS = ("<|endoftext|>", "</s>")


@dataclass(frozen=True)
class Document:
    """One text, which nothing before or after it belongs to."""

    text: str
    place: Place


def text_files(paths: Iterable[Path]) -> list[Path]:
    """The files themselves; for a folder, every text file inside it, in the order of their names.

    Raises:
        InvalidInputError: nothing is there, or a file of a kind that holds no text by its name.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.is_file() and _suffix(file) is not None)
            if not inside:
                raise InvalidInputError(f"{path}: no text files in this folder; {_kinds()} are read")
            found += inside
        else:
            _check_file(path)
            found.append(path)
    if twice := {file for file in found if found.count(file) > 1}:
        raise InvalidInputError(f"{min(twice)} was given twice: name each file once")
    return found


def text_hash(text: str) -> int:
    """64 bits of a text, the same everywhere and always.

    >>> text_hash("mistral")
    17508185978384192122
    """
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def is_plain_text(file: Path) -> bool:
    """Whether a file is plain text by its name.

    >>> is_plain_text(Path("book.txt.gz")), is_plain_text(Path("books.jsonl"))
    (True, False)
    """
    return _suffix(file) in TEXT_SUFFIXES


def read_documents(
    file: Path, *, field: str | None = None, separator: str | None = None, on_problem: OnProblem = refuse
) -> Iterator[Document]:
    """The documents of a file, in its order, never all of it in memory; texts of white space alone are left out.

    field: where a record's text is; by default the first of `TEXT_FIELDS` that it has.
    separator: the line that stands between two documents of a plain text; without one, a file is one document. An
        empty separator means an empty line: paragraphs.

    Raises:
        InvalidInputError: the file cannot be read; or what `on_problem` raises.
    """
    if is_plain_text(file):
        documents = _plain_documents(file, separator, on_problem)
    else:
        documents = _record_documents(file, TEXT_FIELDS if field is None else (field,), on_problem)
    for document in documents:
        if not document.text or document.text.isspace():
            continue
        try:
            size = len(document.text.encode())
        except UnicodeEncodeError:
            on_problem(Problem(document.place, "the text holds half a surrogate pair, which UTF-8 cannot spell"))
            continue
        if size > MAX_DOCUMENT_BYTES:
            on_problem(Problem(document.place, _too_large(size, is_plain=is_plain_text(file))))
        else:
            yield document


def _record_documents(file: Path, keys: tuple[str, ...], on_problem: OnProblem) -> Iterator[Document]:
    for record in read_records(file, on_problem):
        key = next((key for key in keys if key in record.fields), None)
        if key is None:
            has = ", ".join(map(repr, record.fields)) or "no keys"
            wanted = " or ".join(map(repr, keys))
            on_problem(Problem(record.place, f"no {wanted}; it has {has}: name the one with the text (--field)"))
        elif not isinstance(record.fields[key], str):
            kind = kind_of(record.fields[key])
            on_problem(Problem(record.place, f"{key!r} is {kind}, where text is expected"))
        else:
            yield Document(record.fields[key], record.place)


def _plain_documents(file: Path, separator: str | None, on_problem: OnProblem) -> Iterator[Document]:
    """The stretches between the lines that are `separator`, line breaks as they are."""
    lines: list[str] = []
    first = 1
    size = 0
    try:
        for number, line in enumerate(_lines(file), start=1):
            bare = line.rstrip("\r\n")
            if separator is None and bare in _KNOWN_SEPARATORS:
                raise InvalidInputError(
                    f"{Place(file, number)}: a line {bare!r}, which looks like the end of a document: say --separator "
                    f"{bare!r}, or any other text to take the line as it stands"
                )
            if separator is not None and bare == separator:
                yield Document("".join(lines), Place(file, first))
                lines, first, size = [], number + 1, 0
                continue
            lines.append(line)
            size += len(line)
            if size > MAX_DOCUMENT_BYTES:
                raise InvalidInputError(f"{Place(file, first)}: {_too_large(size, is_plain=True)}")
    except UnicodeDecodeError as error:
        where = f"{file}: not UTF-8: byte 0x{error.object[error.start]:02x}"
        raise InvalidInputError(f"{where} near line {first + len(lines)}; convert the file to UTF-8") from None
    yield Document("".join(lines), Place(file, first))


def _lines(file: Path) -> Iterator[str]:
    """The lines of a file with their ends, a byte order mark left out; only `\\n` ends one."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    rest = ""
    with opened(file) as stream:
        while block := stream.read(_BLOCK):
            *whole, rest = (rest + decoder.decode(block)).split("\n")
            yield from (f"{line}\n" for line in whole)
            if len(rest) > MAX_DOCUMENT_BYTES:
                yield rest  # which is refused
                return
    rest += decoder.decode(b"", final=True)
    if rest:
        yield rest


def _too_large(size: int, *, is_plain: bool) -> str:
    remedy = "say what separates documents (--separator; '' for empty lines)" if is_plain else "cut it into several"
    return (
        f"a document of {size / 2**20:.0f} MiB or more, and {MAX_DOCUMENT_BYTES >> 20} MiB is the most that is encoded "
        f"as one: {remedy}"
    )


def _suffix(file: Path) -> str | None:
    """The suffix that tells the kind of a file, `.gz` left aside; None for a kind that is not read."""
    name = file.name.lower().removesuffix(".gz")
    return next((suffix for suffix in (*TEXT_SUFFIXES, *RECORD_SUFFIXES) if name.endswith(suffix)), None)


def _check_file(file: Path) -> None:
    if not file.exists():
        raise InvalidInputError(f"{file}: no such file or folder")
    if _suffix(file) is None:
        raise InvalidInputError(f"{file}: no text file by its name; {_kinds()} are read")


def _kinds() -> str:
    return f"{', '.join((*TEXT_SUFFIXES, *RECORD_SUFFIXES))} (text and JSON also .gz)"
