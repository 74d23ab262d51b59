"""Calls read out of an answer while it is made: what is text, what is a call, and nothing lost.

A call whose form is held by a grammar is told as it comes: its name first, then pieces of its arguments. Where no
grammar holds it, it is told when the answer has ended and all of it has proved to be calls of functions that are there;
otherwise it is text like the rest.
"""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from circius.text.tool_form import GAP, MOST_GAP, CallForm, Pattern
from circius.text.tool_ids import new_call_id
from circius.text.tool_scan import ObjectEnd, found_calls
from circius.text.tools import ToolCall

_SPACES = " \n"


@dataclass(frozen=True)
class CallPiece:
    """A piece of one call: the first has id and name, all of them together the arguments."""

    index: int
    arguments: str
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class Said:
    """What came out of some text: text of the answer, then pieces of calls."""

    text: str = ""
    calls: tuple[CallPiece, ...] = ()


class CallReader:
    """Reads one answer. Texts come by `push` and control tokens of the form by `mark`; `end` gives the rest.

    is_held: whether a grammar holds what begins as a call to the form.
    """

    def __init__(
        self,
        form: CallForm,
        names: Collection[str],
        *,
        is_held: bool,
        new_id: Callable[[], str] = new_call_id,
    ) -> None:
        self._form, self._names, self._is_held, self._new_id = form, names, is_held, new_id
        self._trigger = form.trigger
        self._read: Callable[[], bool] = self._read_text
        self._held = ""
        """What has come and has not been told."""
        self._raw = ""
        """What `_held` would be as text of the answer, the trigger and the space before it included."""
        self._object = ObjectEnd()
        self._heads: list[tuple[str, str]] = []
        self._arguments: list[list[str]] = []
        self._text: list[str] = []
        self._pieces: list[CallPiece] = []
        self._has_text = False
        self.is_whole = False
        """Whether the last call is complete, and all that belongs to the form has come."""

    @property
    def calls(self) -> list[ToolCall]:
        """Those that have been told; the arguments of the last one may still grow."""
        told = zip(self._heads, self._arguments, strict=True)
        return [ToolCall(name, "".join(pieces), own_id) for (name, own_id), pieces in told]

    @property
    def marks(self) -> frozenset[int]:
        """The control tokens that it must be told of."""
        return frozenset(self._form.specials.values())

    def push(self, text: str) -> Said:
        """Takes the next text of the answer."""
        self._held += text
        while self._read():
            pass
        return self._said()

    def mark(self, token: int) -> Said:
        """Takes a control token of the form."""
        if self._read == self._read_text and token == self._trigger:
            self._begin(self._held, "")
            return self._said()
        if self._read in (self._read_text, self._read_rest):
            return self.push("")  # outside of calls it is no text, like any control token
        return self.push(self._form.literal(token))

    def end(self) -> Said:
        """Says that the answer is over, wherever it is: what was held back, as calls or as text."""
        if self._read == self._read_unheld:
            self._end_unheld()
        elif self._read == self._read_after:
            self._end_after()
        else:
            self._tell(self._raw + self._held)
        self._held = self._raw = ""
        return self._said()

    def _said(self) -> Said:
        said = Said("".join(self._text), tuple(self._pieces))
        self._text, self._pieces = [], []
        return said

    def _tell(self, text: str) -> None:
        if text:
            self._text.append(text)
            self._has_text = self._has_text or not text.isspace()

    def _read_text(self) -> bool:
        """Looks for the trigger; what may yet become one, and the space before it, is held back."""
        if isinstance(self._trigger, int):
            kept = len(self._held.rstrip())
            self._tell(self._held[:kept])
            self._held = self._held[kept:]
            return False
        if self._form.is_only_first:
            return self._read_first_text(self._trigger)
        at = self._held.find(self._trigger)
        if at >= 0:
            before = self._held[:at]
            kept = len(before.rstrip())
            self._tell(before[:kept])
            rest = self._held[at + len(self._trigger) :]
            self._begin(before[kept:] + self._trigger, rest)
            return True
        size = next((n for n in range(len(self._trigger) - 1, 0, -1) if self._held.endswith(self._trigger[:n])), 0)
        kept = len(self._held[: len(self._held) - size].rstrip())
        self._tell(self._held[:kept])
        self._held = self._held[kept:]
        return False

    def _read_first_text(self, trigger: str) -> bool:
        """The trigger counts only where nothing but white space stands before it."""
        begun = self._held.lstrip()
        if not self._has_text and begun.startswith(trigger):
            space = self._held[: len(self._held) - len(begun)]
            self._begin(space + trigger, begun[len(trigger) :])
            return True
        if self._has_text or not trigger.startswith(begun):
            self._tell(self._held)
            self._held = ""
        return False

    def _begin(self, raw: str, rest: str) -> None:
        """Goes on behind the trigger."""
        self._raw, self._held = raw, rest
        self._read = self._read_name if self._is_held else self._read_unheld

    def _read_name(self) -> bool:
        """The way to the arguments of a call."""
        pattern = self._form.next if self._heads else self._form.opening
        for name in self._names:
            n_read, is_possible = self._match((*pattern, *self._head(name)))
            if n_read:
                self._add(name)
                self._held, self._raw = self._held[n_read - 1 :], ""
                self._object = ObjectEnd()
                self._read = self._read_arguments
                return bool(self._held)
            if is_possible:
                return False
        self._read = self._read_unheld if not self._heads else self._read_rest
        return True

    def _head(self, name: str) -> Pattern:
        """A call up to the bracket that opens its arguments."""
        return json.dumps(name), self._form.object_middle, "{"

    def _add(self, name: str, arguments: str = "") -> None:
        own_id = self._new_id()
        self._pieces.append(CallPiece(len(self._heads), arguments, own_id, name))
        self._heads.append((name, own_id))
        self._arguments.append([arguments])

    def _read_arguments(self) -> bool:
        size = self._object.find(self._held)
        piece, self._held = self._held[:size], self._held[size:]
        if piece:
            self._arguments[-1].append(piece)
            self._pieces.append(CallPiece(len(self._heads) - 1, piece))
        if not self._object.is_found:
            return False
        self._read = self._read_after
        return bool(self._held)

    def _read_after(self) -> bool:
        """Behind the arguments: another call, or the end."""
        nexts = [self._match((*self._form.next, *self._head(name))) for name in self._names]
        if any(n_read for n_read, _ in nexts):
            self._read = self._read_name
            return True
        if any(is_possible for _, is_possible in nexts):
            return False
        n_read, is_possible = self._match(self._form.closing)
        if n_read:
            self.is_whole = True
        elif is_possible:
            return False
        self._held = self._held[n_read:]
        self._read = self._read_rest
        return True

    def _end_after(self) -> None:
        n_read, is_possible = self._match(self._form.closing)
        rest = self._held[n_read:]
        self.is_whole = n_read > 0 and not rest.strip()
        if rest.strip() and (n_read or not is_possible):  # the beginning of the closing marks is no text
            self._tell(rest)

    def _read_rest(self) -> bool:
        """What follows is text."""
        self._tell(self._held)
        self._held = ""
        return False

    def _read_unheld(self) -> bool:
        """What no grammar holds is judged at the end."""
        return False

    def _end_unheld(self) -> None:
        found = found_calls(self._form, self._raw, self._held, self._names)
        if found is None:
            self._tell(self._raw + self._held)
            return
        for name, arguments in found:
            self._add(name, arguments)
        self.is_whole = True

    def _match(self, pattern: Pattern) -> tuple[int, bool]:
        """How far what is held goes if it begins with the whole pattern, else 0; and whether it still can."""
        return match(self._held, tuple(self._form.literal(p) if isinstance(p, int) else p for p in pattern))


def match(text: str, pattern: Sequence[str | None]) -> tuple[int, bool]:
    """How many characters of `text` the whole pattern takes, else 0; and whether `text` could be its beginning.

    >>> match("[ {", ("[", None, "{")), match("[ ", ("[", None, "{")), match("[x", ("[", None, "{"))
    ((3, True), (0, True), (0, False))
    """
    at = 0
    for part in pattern:
        if part is GAP:
            end = min(at + MOST_GAP, len(text))
            while at < end and text[at] in _SPACES:
                at += 1
            continue
        if not text.startswith(part, at):
            return 0, part.startswith(text[at:])
        at += len(part)
    return at, True
