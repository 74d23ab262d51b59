"""One message of a conversation, and which sequences of messages a chat template accepts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

from circius.base.errors import TemplateError

Role = Literal["system", "user", "assistant"]

ROLES: tuple[str, ...] = get_args(Role)
JOINT = "\n\n"
"""What stands between two texts that become one, as in mistral-common."""

_UNSUPPORTED = {
    "tool": "tools",
    "function": "tools",
    "tool_calls": "tools",
    "function_call": "tools",
    "tool_call_id": "tools",
}
_FOLLOWERS = {
    "system": ("system", "user", "assistant"),
    "user": ("assistant", "system", "user"),
    "assistant": ("assistant", "user"),
}


@dataclass(frozen=True)
class Message:
    """Who says what.

    Raises:
        TemplateError: the role is none of system, user and assistant, or the content is not text.
    """

    role: Role
    content: str

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            tools = "; tools are not supported by these templates" if self.role in _UNSUPPORTED else ""
            raise TemplateError(f"role {self.role!r} is not known: use {', '.join(ROLES)}{tools}")
        if not isinstance(self.content, str):
            raise TemplateError(f"content is a {type(self.content).__name__}, not text")

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], *, index: int | None = None) -> "Message":
        """The message in an OpenAI-style object: its content is text, or a list of `{"type": "text"}` parts.

        `index` is the message's place in its conversation, for the error. Text parts are joined by an empty line.

        >>> Message.from_mapping({"role": "user", "content": [{"type": "text", "text": "Hi"}]})
        Message(role='user', content='Hi')

        Raises:
            TemplateError: a key or a part that cannot be honoured.
        """
        try:
            _refuse_other_keys(mapping)
            return cls(mapping["role"], _text_of(mapping["content"]))
        except TemplateError as error:
            raise TemplateError(f"messages[{index}]: {error}" if index is not None else str(error)) from None


def as_messages(conversation: Sequence[Message | Mapping[str, Any]]) -> list[Message]:
    """The conversation with every mapping made a `Message`.

    Raises:
        TemplateError: a message is not valid; the error names its index.
    """
    return [
        message if isinstance(message, Message) else Message.from_mapping(message, index=index)
        for index, message in enumerate(conversation)
    ]


def check_conversation(messages: Sequence[Message], *, continue_final: bool) -> None:
    """Does nothing for a conversation that the model can answer, or whose last answer it can continue.

    Raises:
        TemplateError: it is empty, begins with the assistant, or ends with the wrong role.
    """
    if not messages:
        raise TemplateError("the conversation is empty: give at least one message")
    if messages[0].role == "assistant":
        raise TemplateError("messages[0]: the assistant cannot speak first; begin with a system or a user message")
    last, final = len(messages) - 1, messages[-1]
    if continue_final and final.role != "assistant":
        raise TemplateError(f"messages[{last}]: only an assistant message can be continued, this one is {final.role}'s")
    if continue_final and not final.content:
        raise TemplateError(f"messages[{last}]: the assistant message to continue is empty; leave it out")
    if not continue_final and final.role == "assistant":
        raise TemplateError(
            f"messages[{last}]: the conversation ends with the assistant, so there is nothing to answer; "
            "add a user message, or ask to continue it (continue_final)"
        )


def check_order(messages: Sequence[Message]) -> None:
    """Does nothing if every role may follow the one before it in Mistral's templates.

    Raises:
        TemplateError: it may not; the error names the index.
    """
    for index, (before, message) in enumerate(pairwise(messages), start=1):
        if message.role not in _FOLLOWERS[before.role]:
            raise TemplateError(
                f"messages[{index}]: {message.role} cannot follow {before.role}; allowed are "
                f"{', '.join(_FOLLOWERS[before.role])}"
            )


def _refuse_other_keys(mapping: Mapping[str, Any]) -> None:
    if not isinstance(mapping, Mapping):
        raise TemplateError(f"a message is a {type(mapping).__name__}, not an object with role and content")
    for key in ("role", "content"):
        if key not in mapping:
            raise TemplateError(f"a message has no {key!r}: it needs role and content")
    for key, value in mapping.items():
        if key in ("role", "content") or value is None or value == []:
            continue
        if key in _UNSUPPORTED:
            raise TemplateError(f"{key!r}: tools are not supported by these templates")
        hint = "; ask for continue_final instead" if key == "prefix" else ""
        raise TemplateError(f"a message has the key {key!r}, which cannot be honoured: role and content are{hint}")


def _text_of(content: Any) -> str:
    if not isinstance(content, list):
        if content is None:
            raise TemplateError("content is null; give text, which may be empty")
        return content  # type: ignore[no-any-return]  # Message refuses what is not text
    texts = []
    for part in content:
        if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise TemplateError(f"a content part is {kind!r}; only parts of type 'text' with a text are supported")
        texts.append(part["text"])
    return JOINT.join(text for text in texts if text)
