"""Where the turns of a chat come from: a person at a terminal, or the lines of a pipe."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from circius.cli.texts import decode_utf8

if TYPE_CHECKING:
    from prompt_toolkit.key_binding import KeyBindings

FENCE = '"""'
"""A line that begins with this opens a block of several lines, and the next one that ends with it closes the block."""


class TurnReader(Protocol):
    """Gives the user's turns, one after another."""

    def read(self) -> str | None:
        """The next turn, without its line break; None when there are no more."""


def read_turn(next_line: Callable[[], str | None]) -> str | None:
    r"""One turn from a source of lines: a line, or all that stands between two fences.

    >>> lines = iter(['\"\"\"one', 'two\"\"\"', 'three'])
    >>> read_turn(lambda: next(lines, None))
    'one\ntwo'

    A block that the end of the input cuts off ends there.
    """
    line = next_line()
    if line is None or not line.startswith(FENCE):
        return line
    line = line.removeprefix(FENCE)
    block: list[str] = []
    while line is not None:
        if line.rstrip().endswith(FENCE):
            block.append(line.rstrip().removesuffix(FENCE))
            break
        block.append(line)
        line = next_line()
    return "\n".join(block).strip("\n")


def unfenced(text: str) -> str:
    """A whole turn, which may have several lines, without the fences around it if it has some."""
    if not text.startswith(FENCE):
        return text
    lines = iter(text.split("\n"))
    return read_turn(lambda: next(lines, None)) or ""


class PipeReader:
    """Turns from standard input when it is not a terminal: one a line, a fenced block as one."""

    def __init__(self) -> None:
        self._line_number = 0

    def read(self) -> str | None:
        return read_turn(self._next_line)

    def _next_line(self) -> str | None:
        raw = sys.stdin.buffer.readline()
        if not raw:
            return None
        self._line_number += 1
        text = decode_utf8(raw, f"line {self._line_number} of standard input")
        return text.removesuffix("\n").removesuffix("\r")


class TerminalReader:
    """Turns typed at a terminal: Enter sends, Esc-Enter breaks the line, Ctrl-C empties it, Ctrl-D ends the chat.

    What was typed is kept in the file `history` from one chat to the next; None keeps it for this chat alone.
    """

    def __init__(self, history: Path | None, commands: Sequence[str]) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.history import FileHistory

        self._session: PromptSession[str] = PromptSession(
            "> ",
            history=None if history is None else FileHistory(str(history)),
            completer=WordCompleter(list(commands), sentence=True),
            complete_while_typing=False,
            multiline=True,
            prompt_continuation="  ",
            key_bindings=_key_bindings(),
        )

    def read(self) -> str | None:
        while True:
            try:
                return unfenced(self._session.prompt())
            except KeyboardInterrupt:
                continue
            except EOFError:
                return None


def _key_bindings() -> "KeyBindings":
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    bindings = KeyBindings()

    @bindings.add("enter")
    def send(event: KeyPressEvent) -> None:
        if has_open_fence(event.current_buffer.text):
            event.current_buffer.newline(copy_margin=False)
        else:
            event.current_buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def break_line(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    return bindings


def has_open_fence(text: str) -> bool:
    '''Whether a block was opened that is not closed yet.

    >>> has_open_fence('"""one'), has_open_fence('"""one"""'), has_open_fence("one")
    (True, False, False)
    '''
    return text.startswith(FENCE) and not text.removeprefix(FENCE).rstrip().endswith(FENCE)
