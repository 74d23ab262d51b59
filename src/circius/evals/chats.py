"""Conversations with a model, many at once: one of ours in this process, or any server that speaks OpenAI's protocol.

What MT-Bench and the arena need of a model and of a judge, and nothing else.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from circius.base.errors import CirciusError, InvalidInputError
from circius.evals.json_client import JsonClient, ServerError

if TYPE_CHECKING:
    from circius.engine.llm import LLM


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A conversation that wants its next message. messages: in OpenAI's form. seed: for temperatures above 0."""

    messages: tuple[Mapping[str, str], ...]
    temperature: float
    max_tokens: int
    seed: int = 0


@dataclass(frozen=True)
class Said:
    """The next message, and why it ended: "length" if it was cut off."""

    text: str
    finish_reason: str


Outcome = Said | CirciusError
"""A message, or why there is none: this one request was refused, or the server did not answer it."""


class Chats(Protocol):
    """What answers conversations."""

    @property
    def at_once(self) -> int:
        """How many it takes on together: a caller that keeps results hands over not many more than that."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """What tells this model from others, for the record of a run: JSON values."""
        ...

    def say(self, turns: Sequence[Turn]) -> Iterator[tuple[int, Outcome]]:
        """The next message of each conversation, with its place among `turns`, as they come."""
        ...


class EngineChats:
    """A model of ours, loaded when it is first asked: who finds all answers kept needs no model.

    system: a system prompt for every conversation. guard: the guard prompt, before that.
    """

    def __init__(
        self,
        load: "Callable[[], LLM]",
        identity: Mapping[str, Any],
        *,
        at_once: int = 8,
        system: str | None = None,
        guard: bool = False,
    ) -> None:
        """identity: what tells this model and its settings from others: JSON values."""
        self._load, self._identity, self._at_once, self._system, self._guard = load, identity, at_once, system, guard
        self._llm: LLM | None = None

    @property
    def at_once(self) -> int:
        return self._at_once

    def describe(self) -> Mapping[str, Any]:
        return {"kind": "engine", **self._identity, "system": self._system, "guard": self._guard}

    def say(self, turns: Sequence[Turn]) -> Iterator[tuple[int, Outcome]]:
        from circius.engine.outputs import check_finished
        from circius.engine.params import SamplingParams

        if self._llm is None:
            self._llm = self._load()
        asked, places = [], []
        for place, turn in enumerate(turns):
            params = SamplingParams(temperature=turn.temperature, max_tokens=turn.max_tokens, seed=turn.seed)
            try:
                self._llm.asker.chat(_opened(self._system, turn.messages), params, guard=self._guard)
            except CirciusError as error:
                yield place, error
                continue
            places.append(place)
            asked.append((_opened(self._system, turn.messages), params))
        if not asked:
            return
        results = self._llm.chat(
            [messages for messages, _ in asked], [params for _, params in asked], guard=self._guard
        )
        for place, result in zip(places, check_finished(results), strict=True):
            yield place, Said(result.outputs[0].text, result.outputs[0].finish_reason)


class EndpointChats:
    """A model behind a server, asked through `POST /chat/completions`."""

    def __init__(self, client: JsonClient, name: str, *, concurrency: int = 8, system: str | None = None) -> None:
        """name: what the server calls the model. concurrency: requests that may be open at once."""
        if concurrency < 1:
            raise InvalidInputError(f"concurrency must be 1 or more, got {concurrency}")
        self._client, self._name, self._concurrency, self._system = client, name, concurrency, system

    @property
    def at_once(self) -> int:
        return self._concurrency

    def describe(self) -> Mapping[str, Any]:
        return {"kind": "endpoint", "name": self._name, "url": self._client.base, "system": self._system}

    def say(self, turns: Sequence[Turn]) -> Iterator[tuple[int, Outcome]]:
        with ThreadPoolExecutor(self._concurrency) as pool:
            waiting = {pool.submit(self._said, turn): place for place, turn in enumerate(turns)}
            try:
                for done in as_completed(waiting):
                    yield waiting[done], done.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _said(self, turn: Turn) -> Outcome:
        body: dict[str, Any] = {
            "model": self._name,
            "messages": list(_opened(self._system, turn.messages)),
            "max_tokens": turn.max_tokens,
            "temperature": turn.temperature,
        }
        if turn.temperature > 0:
            body["seed"] = turn.seed
        try:
            return _read(self._client.post("chat/completions", body), self._client.base)
        except ServerError as error:
            return error


def _opened(system: str | None, messages: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    return [*([{"role": "system", "content": system}] if system else []), *messages]


def _read(reply: Mapping[str, Any], base: str) -> Said:
    choices = reply.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    message = choice.get("message")
    if not isinstance(message, dict):
        raise ServerError(f"{base}/chat/completions answered no message: {str(reply)[:200]}")
    return Said(str(message.get("content") or ""), str(choice.get("finish_reason") or "stop"))
