"""What can be mended in a conversation without losing anything that is learnt."""

from collections.abc import Mapping
from typing import Any

from circius.train.forms import LISTS, SPEAKERS, Fields


def repaired(fields: Fields) -> tuple[dict[str, Any], str] | None:
    """The record with its conversation mended, and what was done; None if there is nothing to mend in this way.

    Mended are messages after the last answer, which no answer follows, and a weight of 0 on what is never learnt.

    >>> repaired({"messages": [{"role": "user", "content": "Hi", "weight": 0}, {"role": "assistant", "content": "Ho"},
    ...                        {"role": "user", "content": "Bye"}]})[1]
    '1 message after the last answer was left out; the weight of 1 message that is never learnt was removed'
    """
    key = next((key for key in LISTS if isinstance(fields.get(key), list)), None)
    if key is None or not all(isinstance(turn, Mapping) for turn in fields[key]):
        return None
    turns = [dict(turn) for turn in fields[key]]
    last = max((index for index, turn in enumerate(turns) if _is_answer(turn)), default=None)
    if last is None:
        return None
    done = []
    if n_after := len(turns) - 1 - last:
        done.append(f"{_count(n_after)} after the last answer {_was(n_after)} left out")
    kept = turns[: last + 1]
    weighed = [turn for turn in kept if not _is_answer(turn) and turn.get("weight") == 0]
    if weighed:
        for turn in weighed:
            del turn["weight"]
        done.append(f"the weight of {_count(len(weighed))} that {_is(len(weighed))} never learnt was removed")
    return ({**fields, key: kept}, "; ".join(done)) if done else None


def _is_answer(turn: Mapping[str, Any]) -> bool:
    speaker = turn.get("role", turn.get("from"))
    return isinstance(speaker, str) and SPEAKERS.get(speaker) == "assistant"


def _count(n: int) -> str:
    return f"{n} message{'s' if n > 1 else ''}"


def _was(n: int) -> str:
    return "were" if n > 1 else "was"


def _is(n: int) -> str:
    return "are" if n > 1 else "is"
