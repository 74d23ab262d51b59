"""What a verb tells the user: results on stdout, everything about them (notes, statistics, progress) on stderr."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console


class Output:
    """One verb's voice. With `as_json` stdout carries exactly one object, and the notes are inside it.

    `quiet` hides notes, statistics and progress; it never hides a result or an error.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.notes: list[str] = []
        self._n_shown = 0
        self._aside = Console(stderr=True, highlight=False, markup=False)

    @property
    def shows_progress(self) -> bool:
        """Whether somebody is watching stderr, and wants to."""
        return self._aside.is_terminal and not self.quiet

    @property
    def aside(self) -> Console:
        """The console on stderr, for progress bars."""
        return self._aside

    def note(self, sentence: str) -> None:
        """Tells of a choice that was made for the user, once: with what comes next, so that an error stands alone."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def show_notes(self) -> None:
        """Shows the notes that were not shown yet; with JSON they wait for their object."""
        if self.as_json:
            return
        fresh, self._n_shown = self.notes[self._n_shown :], len(self.notes)
        for sentence in fresh:
            self._print_dim(f"note: {sentence}")

    def dim(self, text: str) -> None:
        """A line beside the result, on stderr; nothing when quiet."""
        self.show_notes()
        self._print_dim(text)

    def reply(self, text: str) -> None:
        """A line that the user asked for but that is no result, on stderr; quiet does not hide it."""
        self.show_notes()
        self._print_aside(text)

    def text(self, piece: str) -> None:
        """A piece of the result, shown at once."""
        self.show_notes()
        sys.stdout.write(visible(piece) if sys.stdout.isatty() else piece)
        sys.stdout.flush()

    def line(self, text: str = "") -> None:
        """A whole line of the result."""
        self.text(f"{text}\n")

    def rows(self, rows: Iterable[tuple[str, str]]) -> None:
        """Two aligned columns of the result: names and values."""
        rows = list(rows)
        width = max((len(name) for name, _ in rows), default=0)
        for name, value in rows:
            self.line(f"{name:<{width}}  {value}".rstrip())

    def _print_dim(self, text: str) -> None:
        if not self.quiet:
            self._print_aside(text)

    def _print_aside(self, text: str) -> None:
        # Words are wrapped for people; a log keeps its lines.
        self._aside.print(text, style="dim", soft_wrap=not self._aside.is_terminal)

    def emit(self, fields: Mapping[str, Any]) -> None:
        """The result for machines: one line with one JSON object, the notes in it."""
        self.line(json.dumps({**fields, "notes": self.notes}, ensure_ascii=False, allow_nan=False))


def visible(text: str) -> str:
    r"""The text with control characters other than tab and newline shown, so that no model can drive the terminal.

    >>> visible("red:\x1b[31m")
    'red:␛[31m'
    """
    return text.translate(_CONTROL_PICTURES) if not text.isprintable() else text


_CONTROL_PICTURES = (
    {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"}
    | {0x7F: 0x2421}
    | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows as aligned columns under a header, plain text.

    >>> print(table(["id", "piece"], [["1", "<s>"]]))
    id  piece
    1   <s>
    """
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def size(n_bytes: int | float) -> str:
    """Bytes for people, in binary units.

    >>> size(512), size(131072), size(14_483_464_192)
    ('512 B', '128.0 KiB', '13.5 GiB')
    """
    amount = float(n_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
