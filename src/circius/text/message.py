"""One message of a conversation, and which sequences of messages a chat template accepts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

from circius.base.errors import TemplateError
from circius.text.tools import ToolCall, check_id, check_name, json_text

Role = Literal["system", "user", "assistant", "tool"]

ROLES: tuple[str, ...] = get_args(Role)
JOINT = "\n\n"
"""What stands between two texts that become one, as in mistral-common."""

_KEYS = ("role", "content", "tool_calls", "tool_call_id", "name")
_HINTS = {
    "prefix": "ask for continue_final instead",
    "function_call": "this is the old form of tool calls: give tool_calls, a list of calls with ids",
    "name": "no template has a place for the name of a speaker",
}
_FOLLOWERS = {
    "system": ("system", "user", "assistant"),
    "user": ("assistant", "system", "user"),
    "assistant": ("assistant", "user", "tool"),
    "tool": ("assistant", "tool", "user"),
}


@dataclass(frozen=True)
class Message:
    """Who says what.

    An assistant's message may have `tool_calls`, beside its text or instead of it. A tool's message is the result of
    the call that `tool_call_id` names; `name` is that of the function, and may be left out.

    Raises:
        TemplateError: the role is not known, the content is not text, or a field belongs to another role.
    """

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            old = "; 'function' is the old name of 'tool'" if str(self.role) == "function" else ""
            raise TemplateError(f"role {self.role!r} is not known: use {', '.join(ROLES)}{old}")
        if not isinstance(self.content, str):
            raise TemplateError(f"content is a {type(self.content).__name__}, not text")
        if self.tool_calls and self.role != "assistant":
            raise TemplateError(f"tool_calls are the assistant's, not {self.role}'s")
        for key in ("tool_call_id", "name"):
            if getattr(self, key) is not None and self.role != "tool":
                raise TemplateError(f"{key} belongs to the result of a tool, not to {self.role}")
        if self.tool_call_id is not None:
            check_id(self.tool_call_id, "tool_call_id")
        if self.name is not None:
            check_name(self.name, "name")
        ids = [call.id for call in self.tool_calls if call.id is not None]
        if len(set(ids)) < len(ids):
            raise TemplateError(f"tool_calls: two calls have the same id: {', '.join(ids)}")

    @property
    def texts(self) -> tuple[str, ...]:
        """All that was written by somebody: the content, and the arguments of calls."""
        return (self.content, *(json_text(call.value) for call in self.tool_calls))

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], *, index: int | None = None) -> "Message":
        """The message in an OpenAI-style object: its content is text, or a list of `{"type": "text"}` parts.

        `index` is the message's place in its conversation, for the error. Text parts are joined by an empty line. Next
        to tool calls the content may be null.

        >>> Message.from_mapping({"role": "user", "content": [{"type": "text", "text": "Hi"}]}).content
        'Hi'

        Raises:
            TemplateError: a key or a part that cannot be honoured.
        """
        try:
            _refuse_other_keys(mapping)
            calls = _calls_of(mapping.get("tool_calls"))
            return cls(
                mapping["role"],
                _text_of(mapping.get("content"), may_be_missing=bool(calls)),
                calls,
                mapping.get("tool_call_id"),
                mapping.get("name"),
            )
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
        TemplateError: it is empty, begins with the assistant, ends with the wrong role, or calls and results do not
            belong together.
    """
    if not messages:
        raise TemplateError("the conversation is empty: give at least one message")
    if messages[0].role in ("assistant", "tool"):
        speaker = "the assistant cannot speak" if messages[0].role == "assistant" else "the result of a tool cannot be"
        raise TemplateError(f"messages[0]: {speaker} first; begin with a system or a user message")
    last, final = len(messages) - 1, messages[-1]
    if continue_final and final.role != "assistant":
        raise TemplateError(f"messages[{last}]: only an assistant message can be continued, this one is {final.role}'s")
    if continue_final and final.tool_calls:
        raise TemplateError(f"messages[{last}]: a message with tool calls is whole and cannot be continued")
    if continue_final and not final.content:
        raise TemplateError(f"messages[{last}]: the assistant message to continue is empty; leave it out")
    check_results(messages)
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


def check_results(messages: Sequence[Message]) -> None:
    """Does nothing if behind every assistant message stand the results of its calls, in whatever order.

    Raises:
        TemplateError: a result is missing, or belongs to no call; the error names the index.
    """
    waiting: list[str | None] = []
    caller = 0
    for index, message in enumerate(messages):
        if message.role == "tool":
            _take_result(message, waiting, index)
            continue
        if waiting:
            break
        waiting, caller = [call.id for call in message.tool_calls], index
    if waiting:
        ids = ", ".join(repr(own_id) for own_id in waiting)
        raise TemplateError(
            f"messages[{caller}]: a message of the role 'tool' must follow for each of its calls; those without a "
            f"result: {ids}"
        )


def _take_result(message: Message, waiting: list[str | None], index: int) -> None:
    if not waiting:
        raise TemplateError(f"messages[{index}]: the result of a tool must follow the message that called it")
    if message.tool_call_id is None and any(own_id is not None for own_id in waiting):
        raise TemplateError(f"messages[{index}]: tool_call_id is missing: it says which call this is the result of")
    if message.tool_call_id not in waiting:
        raise TemplateError(
            f"messages[{index}]: tool_call_id {message.tool_call_id!r} is none of the calls that wait for a result: "
            f"{', '.join(repr(own_id) for own_id in waiting)}"
        )
    waiting.remove(message.tool_call_id)


def _refuse_other_keys(mapping: Mapping[str, Any]) -> None:
    if not isinstance(mapping, Mapping):
        raise TemplateError(f"a message is a {type(mapping).__name__}, not an object with role and content")
    needed = ("role",) if mapping.get("tool_calls") else ("role", "content")
    for key in needed:
        if key not in mapping:
            raise TemplateError(f"a message has no {key!r}: it needs role and content")
    for key, value in mapping.items():
        if value is None or value == []:
            continue
        if key not in _KEYS or (key == "name" and mapping["role"] != "tool"):
            hint = f"; {_HINTS[key]}" if key in _HINTS else ""
            raise TemplateError(f"a message has the key {key!r}, which cannot be honoured: role and content are{hint}")


def _calls_of(calls: Any) -> tuple[ToolCall, ...]:
    if calls is None:
        return ()
    if isinstance(calls, str | Mapping) or not isinstance(calls, Sequence):
        raise TemplateError(f"tool_calls must be a list of calls, got {calls!r:.80}")
    made = []
    for index, call in enumerate(calls):
        try:
            made.append(call if isinstance(call, ToolCall) else ToolCall.from_mapping(call))
        except TemplateError as error:
            raise TemplateError(f"tool_calls[{index}]: {error}") from None
    return tuple(made)


def _text_of(content: Any, *, may_be_missing: bool) -> str:
    if not isinstance(content, list):
        if content is None and not may_be_missing:
            raise TemplateError("content is null; give text, which may be empty")
        return "" if content is None else content  # Message refuses what is not text
    texts = []
    for part in content:
        if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise TemplateError(f"a content part is {kind!r}; only parts of type 'text' with a text are supported")
        texts.append(part["text"])
    return JOINT.join(text for text in texts if text)
