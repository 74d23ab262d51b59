"""The questions of a run: seeded, grouped, and with one digest that says whether two runs asked the same."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from circius.base.errors import CirciusError
from circius.evals.data.catalogue import choose
from circius.evals.data.store import Stored, holds, stored
from circius.evals.item import Ask, Choices, Item, Text
from circius.evals.subset import drawn
from circius.evals.task import Sources, Task

GROUP_CHARACTERS = 32_768
"""New text that a group reads, about: what several questions begin with counts once."""
_GROUPS_OF_STREAMS = 4


@dataclass(frozen=True, kw_only=True)
class Question:
    """An item and what is asked about it."""

    item: Item
    asks: tuple[Ask, ...]


@dataclass(frozen=True, kw_only=True)
class Exam:
    """A task, the items of it that a run takes, and what all prompts share."""

    task: Task
    items: tuple[Item, ...]
    n_all: int
    shots: Any
    seed: int
    data: Mapping[str, Stored]
    """The files that the items came from."""

    @classmethod
    def of(cls, task: Task, sources: Sources, *, limit: int | None = None, seed: int = 0) -> "Exam":
        """Reads the data and draws the items.

        Raises:
            CirciusError: the data are not there, or damaged, or there are none.
        """
        everything = task.items(sources)
        if not everything:
            raise CirciusError(f"{task.name} has no items")
        if len({item.id for item in everything}) < len(everything):
            raise CirciusError(f"{task.name}: two items have the same id")
        items = drawn(everything, limit, seed=seed, name=task.name, is_balanced=task.is_balanced)
        return cls(
            task=task,
            items=tuple(items),
            n_all=len(everything),
            shots=task.shots(sources),
            seed=seed,
            data=_stored(task, sources.home),
        )

    def question(self, item: Item) -> Question:
        """What is asked about an item; samples have the seed of task and item."""
        asks = self.task.asks(item, self.shots)
        return Question(item=item, asks=tuple(_seeded(ask, self.task.name, item.id, self.seed) for ask in asks))

    def digest(self) -> str:
        """SHA-256 over all questions: another prompt, item, seed or temperature gives another one."""
        digest = hashlib.sha256()
        for item in self.items:
            digest.update(json.dumps([item.id, [describe_ask(ask) for ask in self.question(item).asks]]).encode())
            digest.update(b"\n")
        return digest.hexdigest()

    def groups(self, n_at_once: int) -> Iterator[list[Question]]:
        """Neighbours that are answered together. How they are cut depends on the questions and `n_at_once` alone, never
        on which have been answered already: what is computed beside an item can move its last digits."""
        group: list[Question] = []
        n_characters = n_answers = 0
        last = ""
        for item in self.items:
            question = self.question(item)
            for ask in question.asks:
                text = _beginning(ask)
                n_characters += _size(ask) - _n_common(last, text)
                n_answers += ask.n if isinstance(ask, Text) else 0
                last = text
            group.append(question)
            if n_characters >= GROUP_CHARACTERS or n_answers >= _GROUPS_OF_STREAMS * n_at_once:
                yield group
                group, n_characters, n_answers, last = [], 0, 0, ""
        if group:
            yield group


def _stored(task: Task, home: Path | None) -> dict[str, Stored]:
    paths = (part.path for entry in choose(task.data) for part in entry.parts) if task.data else ()
    return {path: stored(path, home) for path in paths if holds(path, home)}


def describe_ask(ask: Ask) -> dict[str, Any]:
    """A question in JSON values; a context that all choices share stands there once."""
    described: dict[str, Any] = {"kind": type(ask).__name__.lower(), **asdict(ask)}
    if isinstance(ask, Choices) and len(set(ask.contexts)) == 1:
        described["context"] = described.pop("contexts")[0]
    return described


def seed_of(task: str, item: str, seed: int) -> int:
    """The seed of an item's samples, the same on every machine.

    >>> seed_of("gsm8k", "17", 0)
    1961357180
    """
    return int.from_bytes(hashlib.sha256(f"{task}\0{item}\0{seed}".encode()).digest()[:4], "big") >> 1


def _seeded(ask: Ask, task: str, item: str, seed: int) -> Ask:
    if isinstance(ask, Text) and not ask.is_greedy:
        return replace(ask, seed=seed_of(task, item, seed))
    return ask


def _beginning(ask: Ask) -> str:
    if isinstance(ask, Choices):
        return ask.contexts[0]
    return ask.prompt if isinstance(ask, Text) else ""


def _n_common(one: str, other: str) -> int:
    """How many characters both begin with."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _size(ask: Ask) -> int:
    """Characters to be read, about."""
    if isinstance(ask, Choices):
        contexts = sum(map(len, dict.fromkeys(ask.contexts)))
        return contexts + sum(map(len, ask.continuations)) * (1 if ask.unconditional is None else 2)
    return len(ask.prompt) if isinstance(ask, Text) else 4 * len(ask.ids)
