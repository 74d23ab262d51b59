"""Pairs of answers of which one is preferred, for DPO."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from circius.base.errors import InvalidInputError, TemplateError
from circius.text.chat import ChatTemplate
from circius.text.message import Message
from circius.text.tools import Tool, as_tools
from circius.train.conversations import Conversation, messages_of, says_something
from circius.train.example import Example
from circius.train.forms import SHARED_KEYS, Fields, Raw, instruction, is_preference, raw_tools, turns_of, with_system
from circius.train.labels import labelled
from circius.train.records import OnProblem, Place, Problem, Record, read_records, refuse

PREFERENCE_KEYS = SHARED_KEYS | {"prompt", "instruction", "input", "context", "chosen", "rejected"}
"""The keys of a record that a preference pair is made of."""


@dataclass(frozen=True)
class Preference:
    """What was asked, the answer that is preferred, and the one that is not; both end with the assistant's message."""

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    place: Place
    tools: tuple[Tool, ...] = ()

    def examples(self, template: ChatTemplate) -> tuple[Example, Example]:
        """The prompt with the chosen answer, and with the rejected one; nothing of the prompt is learnt.

        Raises:
            TemplateError: the template cannot render one of them.
            InvalidInputError: nothing of an answer, or all of it with the prompt, would be learnt.
        """
        chosen, rejected = (labelled(template, self._conversation(answer)) for answer in (self.chosen, self.rejected))
        return chosen, rejected

    def _conversation(self, answer: tuple[Message, ...]) -> Conversation:
        learnt = [False] * len(self.prompt) + [message.role == "assistant" for message in answer]
        return Conversation((*self.prompt, *answer), tuple(learnt), self.place, self.tools)


def read_preferences(file: Path, on_problem: OnProblem = refuse) -> Iterator[Preference]:
    """The preference pairs in a file, in its order; what is not a valid one goes to `on_problem`.

    A record has `chosen` and `rejected`, each a text or a list of messages, and before them a `prompt` (a text or a
    list of messages) or an `instruction` with its `input`. Without either, what the two lists begin with alike is the
    prompt.

    Raises:
        InvalidInputError: the file cannot be read, or what `on_problem` raises.
    """
    for record in read_records(file, on_problem):
        try:
            found = preference_of(record)
        except (InvalidInputError, TemplateError) as error:
            on_problem(Problem(record.place, str(error)))
        else:
            yield found


def preference_of(record: Record) -> Preference:
    """The pair that a record holds.

    Raises:
        InvalidInputError: it holds none, or two answers that are the same.
        TemplateError: a message is not valid.
    """
    fields = record.fields
    if not is_preference(fields):
        raise InvalidInputError(
            "a preference pair has 'chosen' and 'rejected'; this record has "
            f"{', '.join(map(repr, fields)) or 'no keys'}"
        )
    prompt = _prompt(fields)
    both = [turns_of(fields[key], "assistant", key) for key in ("chosen", "rejected")]
    if prompt is None:
        n_shared = _n_shared(*both)
        prompt, both = both[0][:n_shared], [answer[n_shared:] for answer in both]
    else:
        both = [_without(prompt, answer) for answer in both]
    asked = tuple(messages_of(with_system(fields, prompt))[0])
    chosen, rejected = (tuple(messages_of(answer)[0]) for answer in both)
    _check(asked, chosen, rejected)
    return Preference(asked, chosen, rejected, record.place, as_tools(raw_tools(fields)))


def _prompt(fields: Fields) -> list[Raw] | None:
    if "prompt" in fields:
        return turns_of(fields["prompt"], "user", "prompt")
    if "instruction" in fields:
        return [instruction(fields, form="preference")]
    return None


def _without(prompt: list[Raw], answer: list[Raw]) -> list[Raw]:
    """The answer without the prompt, which some files repeat in it."""
    return answer[len(prompt) :] if answer[: len(prompt)] == prompt else answer


def _n_shared(chosen: list[Raw], rejected: list[Raw]) -> int:
    pairs = zip(chosen, rejected, strict=False)
    return next((index for index, (one, other) in enumerate(pairs) if one != other), min(len(chosen), len(rejected)))


def _check(prompt: tuple[Message, ...], chosen: tuple[Message, ...], rejected: tuple[Message, ...]) -> None:
    if not prompt or prompt[-1].role == "assistant":
        raise InvalidInputError(
            "the prompt must end with what is answered: give 'prompt', or 'instruction', or lists of messages that "
            "begin with the same question"
        )
    if chosen == rejected:
        raise InvalidInputError("the chosen and the rejected answer are the same: leave the pair out")
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        if not answer or answer[-1].role != "assistant" or not says_something(answer[-1]):
            raise InvalidInputError(f"{name!r} does not end with an answer of the assistant that says something")
