"""Which tokens may stand in an answer that calls functions, or may not."""

from collections.abc import Callable
from typing import Protocol

from circius.engine.structured import Constraint
from circius.text import Tokenizer
from circius.text.tool_form import CallForm


class TextConstraint(Constraint, Protocol):
    """A constraint that also goes on behind bytes that are part of a token."""

    def accept_bytes(self, content: bytes) -> bool:
        """Whether the form can begin with these bytes; if so, goes on behind them."""
        ...


class LazyCalls:
    """Lets an answer be free until it begins a call, and holds it to the form of calls from there on."""

    def __init__(
        self, form: CallForm, make: Callable[[], TextConstraint], *, tokenizer: Tokenizer, vocab_size: int
    ) -> None:
        """make: makes the constraint of what follows the trigger."""
        self._make, self._tokenizer = make, tokenizer
        self._trigger = form.trigger if isinstance(form.trigger, int) else form.trigger.encode()
        self._is_only_first = form.is_only_first
        self._everything = b"\xff" * (-(-vocab_size // 8))
        self._text = b""
        """The end of the free text that may be the beginning of the trigger."""
        self._held: TextConstraint | None = None
        self._stays_free = False

    def allowed(self) -> bytes:
        return self._everything if self._held is None else self._held.allowed()

    def accept(self, token: int) -> None:
        if self._held is not None:
            self._held.accept(token)
        elif isinstance(self._trigger, int):
            if token == self._trigger:
                self._held = self._make()
        elif not self._stays_free:
            self._look_for(self._trigger, self._text + self._tokenizer.token_bytes(token))

    def _look_for(self, trigger: bytes, text: bytes) -> None:
        if self._is_only_first:
            text = text.lstrip()
            is_there = text.startswith(trigger)
            self._stays_free = not is_there and not trigger.startswith(text)
            at = 0 if is_there else -1
        else:
            at = text.find(trigger)
        if at < 0:
            self._text = text if self._is_only_first else text[max(0, len(text) - len(trigger) + 1) :]
            return
        held = self._make()
        if held.accept_bytes(text[at + len(trigger) :]):
            self._held = held
        else:
            self._stays_free = True  # it is not the form, and is read as text


class AllBut:
    """Forbids one token."""

    def __init__(self, token: int, *, vocab_size: int) -> None:
        bits = bytearray(b"\xff" * (-(-vocab_size // 8)))
        bits[token // 8] &= ~(1 << token % 8)
        self._bits = bytes(bits)

    def allowed(self) -> bytes:
        return self._bits

    def accept(self, token: int) -> None:
        """Nothing depends on what stands before."""
