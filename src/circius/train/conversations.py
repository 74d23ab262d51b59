"""Conversations to learn from, out of files of several forms."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circius.base.errors import InvalidInputError, TemplateError
from circius.text.message import Message
from circius.text.segments import check_learnable
from circius.text.tools import Tool, as_tools
from circius.train.forms import CHAT_FORMS, detect, is_preference, raw_conversations, raw_tools
from circius.train.records import OnProblem, Place, Problem, Record, read_records, refuse


@dataclass(frozen=True)
class Conversation:
    """Messages that end with the assistant's, and for each whether it is learnt; only the assistant's ever are."""

    messages: tuple[Message, ...]
    learnt: tuple[bool, ...]
    place: Place
    tools: tuple[Tool, ...] = ()
    """The functions that the assistant may call."""

    def __post_init__(self) -> None:
        assert len(self.messages) == len(self.learnt)


def read_conversations(file: Path, form: str = "auto", on_problem: OnProblem = refuse) -> Iterator[Conversation]:
    """The conversations in a file, in its order; what is not a valid one goes to `on_problem`.

    form: one of `CHAT_FORMS`, or `auto`, which goes by the first object of the file.

    Raises:
        InvalidInputError: the file cannot be read, its form is not known, or what `on_problem` raises.
    """
    reader = ConversationReader(form)
    for record in read_records(file, on_problem):
        try:
            found = reader.conversations(record)
        except (InvalidInputError, TemplateError) as error:
            on_problem(Problem(record.place, str(error)))
        else:
            yield from found


class ConversationReader:
    """Makes conversations of the records of one file; the first record decides the form, unless it was named.

    Raises:
        InvalidInputError: there is no such form.
    """

    def __init__(self, form: str = "auto") -> None:
        if form not in ("auto", *CHAT_FORMS):
            raise InvalidInputError(f"form {form!r} is not known: use auto, {', '.join(CHAT_FORMS)}")
        self.form = form

    def conversations(self, record: Record) -> list[Conversation]:
        """The conversations of a record, nearly always one.

        Raises:
            InvalidInputError: it is none of this form, or one from which nothing can be learnt.
            TemplateError: a message is not valid.
        """
        if self.form == "auto":
            self.form = _detected(record)
        tools = as_tools(raw_tools(record.fields))
        return [conversation_of(raw, record.place, tools) for raw in raw_conversations(record.fields, self.form)]


def conversation_of(raw: Sequence[Any], place: Place, tools: tuple[Tool, ...] = ()) -> Conversation:
    """The conversation that a list of message objects is, each with a `weight` of 0 or 1 if it has one.

    Raises:
        InvalidInputError: a weight that is not allowed, or nothing to learn.
        TemplateError: a message is not valid, or the conversation does not end with the assistant's.
    """
    messages, learnt = messages_of(raw)
    check_learnable(messages)
    if not any(learnt):
        raise InvalidInputError("every answer has weight 0, so nothing is learnt: leave the conversation out")
    for index, (message, is_learnt) in enumerate(zip(messages, learnt, strict=True)):
        if is_learnt and not says_something(message):
            raise InvalidInputError(
                f"messages[{index}]: the answer is empty, so the model would learn to say nothing; write one, or "
                "give it the weight 0"
            )
    return Conversation(tuple(messages), tuple(learnt), place, tools)


def messages_of(raw: Sequence[Any]) -> tuple[list[Message], list[bool]]:
    """The messages, and whether each is learnt: the assistant's, unless its weight is 0.

    Raises:
        InvalidInputError: a weight that is not allowed.
        TemplateError: a message is not valid.
    """
    messages: list[Message] = []
    learnt: list[bool] = []
    for index, fields in enumerate(raw):
        weight = fields.get("weight") if isinstance(fields, Mapping) else None
        named = _with_content(fields) if isinstance(fields, Mapping) else fields
        message = Message.from_mapping(named, index=index)
        messages.append(message)
        learnt.append(_is_learnt(message, weight, index))
    return messages, learnt


def says_something(message: Message) -> bool:
    """Whether there is text in a message, or the call of a tool."""
    return bool(message.content.strip() or message.tool_calls)


def _with_content(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The message's own fields; the text may also be called `text`."""
    kept = {key: value for key, value in fields.items() if key != "weight"}
    if "content" not in kept and "text" in kept:
        kept["content"] = kept.pop("text")
    return kept


def _is_learnt(message: Message, weight: Any, index: int) -> bool:
    is_answer = message.role == "assistant"
    if weight is None:
        return is_answer
    if isinstance(weight, bool) or weight not in (0, 1):
        raise InvalidInputError(f"messages[{index}]: weight is {weight!r}; 0 (not learnt) and 1 (learnt) are allowed")
    if not is_answer:
        raise InvalidInputError(
            f"messages[{index}]: only an assistant message has a weight, this one is {message.role}'s: remove it"
        )
    return bool(weight)


def _detected(record: Record) -> str:
    form = detect(record.fields)
    if form is None and is_preference(record.fields):
        raise InvalidInputError(
            "a preference pair ('chosen' and 'rejected'), which has no one answer to learn; use DPO"
        )
    if form is None:
        keys = ", ".join(map(repr, record.fields)) or "no keys"
        raise InvalidInputError(
            f"an object with {keys}, which is none of the forms {', '.join(CHAT_FORMS)}; see docs/training-data.md"
        )
    return form
