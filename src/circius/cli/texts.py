"""Reading the user's texts: from an argument, a file or a pipe, as UTF-8 and nothing else."""

import sys
from pathlib import Path

from circius.base.errors import InvalidInputError, PromptError


def read_prompt(argument: str | None, file: Path | None) -> str:
    """The text that the user gave as an argument, with `--file`, or through a pipe (no argument, or `-`).

    One line break at the end of a file or a pipe is dropped: it belongs to the tool that wrote the text.

    Raises:
        PromptError: no text, two texts, or a text that is not UTF-8.
        InvalidInputError: the file cannot be read.
    """
    if file is not None:
        if argument is not None:
            raise PromptError("both a text and --file were given: give one of them")
        return without_final_newline(read_text_file(file))
    if argument is not None and argument != "-":
        return argument
    raw = b"" if argument is None and sys.stdin.isatty() else sys.stdin.buffer.read()
    if not raw:
        raise PromptError("no text given: give it as an argument, with --file F, or through a pipe")
    return without_final_newline(decode_utf8(raw, "standard input"))


def read_text_file(path: Path) -> str:
    """The whole text of a file, line breaks as they are.

    Raises:
        InvalidInputError: there is no such file, or it cannot be read.
        PromptError: it is not UTF-8.
    """
    check_readable(path)
    return decode_utf8(path.read_bytes(), str(path))


def check_readable(path: Path) -> None:
    """Raises InvalidInputError unless `path` is a file that can be opened."""
    try:
        with path.open("rb"):
            return
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}") from None


def decode_utf8(raw: bytes, source: str) -> str:
    """The text of `raw`, which came from `source`.

    >>> decode_utf8(b"fa\\xe7ade", "notes.txt")
    Traceback (most recent call last):
    circius.base.errors.PromptError: notes.txt is not UTF-8 text: byte 0xe7 at offset 2; convert it to UTF-8 first

    Raises:
        PromptError: the bytes are not UTF-8; it names the first bad byte and its offset.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PromptError(
            f"{source} is not UTF-8 text: byte 0x{raw[error.start]:02x} at offset {error.start}; "
            "convert it to UTF-8 first"
        ) from None


def without_final_newline(text: str) -> str:
    r"""The text without one line break at its end.

    >>> without_final_newline("a\n\n")
    'a\n'
    """
    return text.removesuffix("\r\n") if text.endswith("\r\n") else text.removesuffix("\n")
