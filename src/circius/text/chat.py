"""What every chat template offers, whatever it was made from."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

from circius.text.injection import Injection
from circius.text.message import Message, as_messages, check_conversation, check_results
from circius.text.segments import Segment, check_learnable
from circius.text.tokenizer import Tokenizer
from circius.text.tool_form import DESCRIBED, CallForm
from circius.text.tools import Tool, as_tools

Messages = Sequence[Message | Mapping[str, Any]]
Tools = Sequence[Tool | Mapping[str, Any]]


class ChatTemplate(ABC):
    """A conversation to the ids of a prompt, BOS included where the template has one."""

    _injection: Injection

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

    def escaping(self) -> Self:
        """This template as one that escapes control text in messages, whatever this one does with it."""
        own = copy.copy(self)
        own._injection = "escape"
        return own

    @property
    def call_form(self) -> CallForm:
        """How the model writes the calls of tools that were given with `tools`."""
        return DESCRIBED

    def encode(self, messages: Messages, *, tools: Tools = (), continue_final: bool = False) -> list[int]:
        """The prompt's ids: ready for an answer, or in the middle of the last message if `continue_final`.

        tools: the functions that the model may call.

        Raises:
            TemplateError: the conversation is not one that the template can render; the error names the message.
        """
        checked = self._checked(messages, continue_final=continue_final)
        return self._encode(checked, as_tools(tools), continue_final=continue_final)

    def render(self, messages: Messages, *, tools: Tools = (), continue_final: bool = False) -> str:
        """The prompt as text, control tokens as their pieces: to look at, not to encode.

        Raises:
            TemplateError: the conversation is not one that the template can render; the error names the message.
        """
        checked = self._checked(messages, continue_final=continue_final)
        return self._render(checked, as_tools(tools), continue_final=continue_final)

    def segments(self, messages: Messages, *, tools: Tools = ()) -> list[Segment]:
        """A whole conversation, its last answer and that answer's end included, for a model to learn from.

        The ids, one segment after the other, are those of `encode` for the same messages, so that a model is trained on
        what it will see.

        Raises:
            TemplateError: nothing can be learnt from the conversation, or the template can't render it; the error names
                the message.
        """
        checked = as_messages(messages)
        check_learnable(checked)
        check_results(checked[:-1])
        return self._segments(checked, as_tools(tools))

    def _checked(self, messages: Messages, *, continue_final: bool) -> list[Message]:
        checked = as_messages(messages)
        check_conversation(checked, continue_final=continue_final)
        return checked

    @abstractmethod
    def _encode(self, messages: Sequence[Message], tools: Sequence[Tool], *, continue_final: bool) -> list[int]: ...

    @abstractmethod
    def _segments(self, messages: Sequence[Message], tools: Sequence[Tool]) -> list[Segment]: ...

    @abstractmethod
    def _render(self, messages: Sequence[Message], tools: Sequence[Tool], *, continue_final: bool) -> str: ...
