"""Ids of calls: our own, and those of others in the form that Mistral's templates want."""

import hashlib
import re
import secrets
import string
from collections.abc import Container, Sequence
from dataclasses import replace
from itertools import count

from circius.text.message import Message

_ALPHABET = string.ascii_letters + string.digits
_LENGTH = 9
_NINE = re.compile(r"[a-zA-Z0-9]{9}")


def new_call_id() -> str:
    """Nine random letters and digits, which every template takes.

    >>> len(new_call_id()), new_call_id().isalnum()
    (9, True)
    """
    return "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))


def with_nine_character_ids(messages: Sequence[Message], *, all_calls: bool = False) -> list[Message]:
    """The conversation with every id nine letters and digits; one that is so already stays.

    Another is exchanged wherever it stands for what a hash makes of the whole of it: different ids stay different, and
    the same conversation gives the same prompt each time, so that its beginning is found in the cache. A call without
    an id gets one if a result follows it, or if `all_calls` are to have one; results without one belong to the calls
    in their order.
    """
    named = _with_own_ids(messages, all_calls=all_calls)
    given = [own_id for message in named for own_id in _ids(message)]
    taken = {own_id for own_id in given if _NINE.fullmatch(own_id)}
    new = {own_id: own_id for own_id in taken}
    for own_id in given:
        if own_id not in new:
            new[own_id] = _hashed(own_id, taken)
            taken.add(new[own_id])
    return [
        replace(
            message,
            tool_calls=tuple(replace(call, id=new[call.id] if call.id else None) for call in message.tool_calls),
            tool_call_id=new[message.tool_call_id] if message.tool_call_id else None,
        )
        for message in named
    ]


def _with_own_ids(messages: Sequence[Message], *, all_calls: bool) -> list[Message]:
    """The conversation with an id, of whatever form, for each call that has a result, and for the result."""
    made: list[Message] = []
    open_ids: list[str] = []
    for index, message in enumerate(messages):
        if message.role == "tool":
            own_id = message.tool_call_id or open_ids[0]
            open_ids = [other for other in open_ids if other != own_id]
            made.append(replace(message, tool_call_id=own_id))
            continue
        is_answered = index + 1 < len(messages) and messages[index + 1].role == "tool"
        if is_answered or all_calls:
            calls = [
                call if call.id else replace(call, id=f"message {index} call {number}")
                for number, call in enumerate(message.tool_calls)
            ]
            open_ids = [call.id for call in calls if call.id]
            message = replace(message, tool_calls=tuple(calls))
        made.append(message)
    return made


def _ids(message: Message) -> list[str]:
    own = [call.id for call in message.tool_calls if call.id]
    return [*own, message.tool_call_id] if message.tool_call_id else own


def _hashed(own_id: str, taken: Container[str]) -> str:
    """An id that is not taken, the same one for the same id whenever nothing stands in the way."""
    for attempt in count():
        digest = hashlib.sha256(f"{attempt}/{own_id}".encode("utf-8", errors="surrogatepass")).digest()
        number = int.from_bytes(digest[:16], "big")
        found = ""
        for _ in range(_LENGTH):
            number, place = divmod(number, len(_ALPHABET))
            found += _ALPHABET[place]
        if found not in taken:
            return found
    raise AssertionError("there are more ids than conversations have calls")
