"""What every chat template offers, whatever it was made from."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from circius.text.message import Message, as_messages, check_conversation
from circius.text.tokenizer import Tokenizer


class ChatTemplate(ABC):
    """A conversation to the ids of a prompt, BOS included where the template has one."""

    def __init__(
        self, name: str, tokenizer: Tokenizer, *, stop_ids: frozenset[int], notes: tuple[str, ...] = ()
    ) -> None:
        self.name = name
        """`v1`, `v2`, `v3`, or `model` for the template that came with the model."""
        self.tokenizer = tokenizer
        self.stop_ids = stop_ids
        """The ids that end an answer."""
        self.notes = notes
        """What was chosen or assumed, one sentence each."""
        self.is_shipped = False
        """Whether the model came with a chat template, so that it is one to talk with and not a base model."""

    def encode(self, messages: Sequence[Message | Mapping[str, Any]], *, continue_final: bool = False) -> list[int]:
        """The prompt's ids: ready for an answer, or in the middle of the last message if `continue_final`.

        Raises:
            TemplateError: the conversation is not one that the template can render; the error names the message.
        """
        return self._encode(self._checked(messages, continue_final=continue_final), continue_final=continue_final)

    def render(self, messages: Sequence[Message | Mapping[str, Any]], *, continue_final: bool = False) -> str:
        """The prompt as text, control tokens as their pieces: to look at, not to encode.

        Raises:
            TemplateError: the conversation is not one that the template can render; the error names the message.
        """
        return self._render(self._checked(messages, continue_final=continue_final), continue_final=continue_final)

    def _checked(self, messages: Sequence[Message | Mapping[str, Any]], *, continue_final: bool) -> list[Message]:
        checked = as_messages(messages)
        check_conversation(checked, continue_final=continue_final)
        return checked

    @abstractmethod
    def _encode(self, messages: Sequence[Message], *, continue_final: bool) -> list[int]: ...

    @abstractmethod
    def _render(self, messages: Sequence[Message], *, continue_final: bool) -> str: ...
