"""Conversations that are longer than a model is trained on: left out, or split between turns; never cut inside one."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Literal, get_args

from circius.base.errors import InvalidInputError
from circius.text.chat import ChatTemplate
from circius.train.conversations import Conversation
from circius.train.example import Example
from circius.train.labels import labelled

TooLong = Literal["error", "drop", "split"]

TOO_LONG: tuple[str, ...] = get_args(TooLong)
TOLERATED = 0.001
"""The share of conversations that may be left out for their length without being asked."""


@dataclass
class Counts:
    """What became of conversations (or of documents, or of pairs of answers); tokens are of what is learnt from."""

    lengths: list[int] = field(default_factory=list)
    """Of every one of them, in ids, before any is split or left out."""
    n_examples: int = 0
    n_tokens: int = 0
    n_learnt: int = 0
    n_split: int = 0
    n_dropped: int = 0
    """How many there is nothing left of."""
    n_lost_answers: int = 0
    """Answers that are too long even by themselves with what they answer, where conversations are split."""

    @property
    def n_whole(self) -> int:
        return len(self.lengths)

    @property
    def longest(self) -> int:
        return max(self.lengths, default=0)

    def keep(self, example: Example) -> Example:
        """Counts an example that is learnt from, and gives it back."""
        self.n_examples += 1
        self.n_tokens += len(example)
        self.n_learnt += example.n_learnt
        return example

    def __iadd__(self, other: "Counts") -> "Counts":
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))
        return self


@dataclass(frozen=True)
class LengthRule:
    """How long an example may be, in ids, and what happens to a longer conversation.

    error: nothing, as long as no more than 0.1 % of them are too long, which are left out and counted; else an error.
    drop: it is left out.
    split: it becomes several, cut before a user's turn, each with the system prompt; every answer is learnt once.

    Raises:
        InvalidInputError: a policy or a length that is not allowed.
    """

    seq_len: int | None
    too_long: TooLong = "error"

    def __post_init__(self) -> None:
        if self.too_long not in TOO_LONG:
            raise InvalidInputError(f"too_long must be one of {', '.join(TOO_LONG)}, got {self.too_long!r}")
        if self.seq_len is not None and self.seq_len < 2:
            raise InvalidInputError(f"seq_len must be 2 or more, got {self.seq_len}")

    def is_too_long(self, n_tokens: int) -> bool:
        """Whether an example of that many ids is one too long."""
        return self.seq_len is not None and n_tokens > self.seq_len

    def check(self, counts: Counts) -> None:
        """Does nothing if the conversations that were left out are few, or leaving them out was asked for.

        Raises:
            InvalidInputError: they are too many.
        """
        n_lost, n_all = counts.n_dropped, counts.n_whole
        if self.too_long == "error" and n_lost > TOLERATED * n_all:
            raise InvalidInputError(
                f"{n_lost} of {n_all} conversations ({n_lost / n_all:.1%}) have more than {self.seq_len} tokens, the "
                f"longest {counts.longest}: choose what happens to them (drop, or split between turns), or a longer "
                "seq_len"
            )


def examples_of(conversation: Conversation, template: ChatTemplate, rule: LengthRule, counts: Counts) -> list[Example]:
    """What is learnt from a conversation: all of it, its windows if it is too long and to be split, or nothing.

    It is one example, but for conversations with tools (`as_prompted`).

    Raises:
        TemplateError, InvalidInputError: as `labelled`; nothing is counted then.
    """
    parts = as_prompted(conversation, template)
    examples = [labelled(template, part) for part in parts]
    length = max(map(len, examples))
    counts.lengths.append(length)
    if not rule.is_too_long(length):
        return [counts.keep(example) for example in examples]
    kept: list[Example] = []
    for part in parts if rule.too_long == "split" else ():
        windows, n_lost = split_at_turns(part, lambda window: not rule.is_too_long(_n_tokens(window, template)))
        kept += [counts.keep(labelled(template, window)) for window in windows]
        counts.n_lost_answers += n_lost
    counts.n_split += bool(kept)
    counts.n_dropped += not kept
    return kept


def as_prompted(conversation: Conversation, template: ChatTemplate) -> list[Conversation]:
    """The conversation itself; one with tools as one that ends with each exchange, where only that is learnt.

    Templates show tools near the last thing that the user said (v2, v3, and most models' own), and some leave earlier
    calls out. So only the last exchange is seen as it will be; v1 describes tools once, at the beginning.
    """
    _, exchanges = _exchanges(conversation)
    if not conversation.tools or template.name == "v1" or len(exchanges) == 1:
        return [conversation]
    parts = []
    for exchange in exchanges:
        learnt = [False] * exchange.start + list(conversation.learnt[exchange.start : exchange.stop])
        messages = conversation.messages[: exchange.stop]
        parts.append(replace(conversation, messages=messages, learnt=tuple(learnt)))
    return [part for part in parts if any(part.learnt)]


def has_late_system(conversation: Conversation, template: ChatTemplate) -> bool:
    """Whether the template shows a system prompt with the last question only, and there are answers to others."""
    has_system = any(message.role == "system" and message.content for message in conversation.messages)
    return has_system and template.name in ("v2", "v3") and len(_exchanges(conversation)[1]) > 1


def split_at_turns(conversation: Conversation, fits: Callable[[Conversation], bool]) -> tuple[list[Conversation], int]:
    """Windows that follow one another, and how many answers to learn are in none of them.

    A window begins at a user's turn, behind the system prompt, and grows by one exchange after the other as long as it
    fits. An exchange that does not fit by itself is in no window. Windows without anything to learn are left out.
    """
    system, exchanges = _exchanges(conversation)
    windows: list[Conversation] = []
    n_lost = first = 0
    while first < len(exchanges):
        grown = partial(_window, conversation, system, exchanges, first)
        end = first + bisect_left(range(first + 1, len(exchanges) + 1), True, key=lambda end: not fits(grown(end)))
        if end > first:
            windows.append(grown(end))
        else:
            n_lost += sum(conversation.learnt[index] for index in exchanges[first])
        first = max(first + 1, end)
    return [window for window in windows if any(window.learnt)], n_lost


def _exchanges(conversation: Conversation) -> tuple[range, list[range]]:
    """The places of the system prompt, and of each exchange: from what the user says to the last answer to it."""
    messages = conversation.messages
    begin = next(index for index, message in enumerate(messages) if message.role != "system")
    starts = [
        index
        for index in range(begin, len(messages))
        if index == begin or (messages[index - 1].role == "assistant" and messages[index].role in ("user", "system"))
    ]
    ends = [*starts[1:], len(messages)]
    return range(begin), [range(start, end) for start, end in zip(starts, ends, strict=True)]


def _window(
    conversation: Conversation, system: range, exchanges: Sequence[range], first: int, end: int
) -> Conversation:
    """The system prompt and the exchanges from `first` to before `end`."""
    places = [*system, *range(exchanges[first].start, exchanges[end - 1].stop)]
    messages = tuple(conversation.messages[place] for place in places)
    learnt = tuple(conversation.learnt[place] for place in places)
    return replace(conversation, messages=messages, learnt=learnt)


def _n_tokens(conversation: Conversation, template: ChatTemplate) -> int:
    segments = template.segments(conversation.messages, tools=conversation.tools)
    return sum(len(segment.ids) for segment in segments)
