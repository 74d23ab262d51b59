"""From the engine's thread to the event loop: a request's events as they come, and its end if the client leaves."""

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Protocol, TypeVar

from starlette.requests import Request as HttpRequest

from circius.base.errors import CirciusError
from circius.engine.outputs import RequestOutput
from circius.engine.request import Request
from circius.engine.worker import AnswerEnd, Event, JobEnd, Ticket, Token, Worker
from circius.model import Adapter
from circius.serve.errors import ApiError, as_api_error

Result = TypeVar("Result")


def new_id(prefix: str) -> str:
    """An id that nobody can guess.

    >>> new_id("cmpl").startswith("cmpl-")
    True
    """
    return f"{prefix}-{uuid.uuid4().hex}"


def salt_of(key: str | None, salt: str | None) -> bytes:
    """What a request's pages in the cache are known by: two clients with different keys never find each other's."""
    parts = (b"" if key is None else b"key:" + key.encode(), b"" if salt is None else b"salt:" + salt.encode())
    return b"".join(hashlib.sha256(part).digest() for part in parts) if any(parts) else b""


class Inbox:
    """The events of some requests, as one stream for the event loop that made it."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self.places: dict[Ticket, int] = {}


def deliver(events: Sequence[tuple[Ticket, Event]]) -> None:
    """Puts events into the inboxes of those who wait for them: what a `Worker` calls from its own thread."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Inbox, Ticket, Event]]] = {}
    for ticket, event in events:
        inbox = ticket.listener
        assert isinstance(inbox, Inbox)
        by_loop.setdefault(inbox.loop, []).append((inbox, ticket, event))
    for loop, own in by_loop.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_put, own)


def _put(events: Sequence[tuple[Inbox, Ticket, Event]]) -> None:
    for inbox, ticket, event in events:
        inbox.events.put_nowait((inbox.places[ticket], event))


class Screen(Protocol):
    """What looks at answers before anybody sees them."""

    async def refused(self, outputs: Mapping[int, RequestOutput]) -> Mapping[tuple[int, int], str]:
        """What to show instead of answers that must not be shown: by the request's place and the answer's index."""
        ...


class Generation:
    """Some requests that are answered together, such as the prompts of one call."""

    def __init__(self, worker: Worker, inbox: Inbox, tickets: Sequence[Ticket], screen: Screen | None = None) -> None:
        self._worker, self._inbox, self.tickets, self._screen = worker, inbox, tickets, screen
        self.outputs: dict[int, RequestOutput] = {}
        """The results of the requests that have ended, by their place."""

    async def events(self) -> AsyncIterator[tuple[int, Event]]:
        """What happens, with the place of the request that it happens to, until all have ended.

        With a screen nothing is told before all answers have ended and were looked at.

        Raises:
            ApiError: a request failed.
        """
        if self._screen is None:
            async for each in self._as_they_come():
                yield each
            return
        held = [each async for each in self._as_they_come()]
        refused = await self._screen.refused(self.outputs)
        self.outputs = {place: _without(output, place, refused) for place, output in self.outputs.items()}
        for place, event in held:
            shown = None if isinstance(event, JobEnd) else refused.get((place, event.answer))
            if shown is None:
                yield place, event
            elif isinstance(event, AnswerEnd):
                yield place, Token(event.answer, 0, shown, None)
                yield place, AnswerEnd(event.answer, "content_filter", None)

    async def _as_they_come(self) -> AsyncIterator[tuple[int, Event]]:
        while len(self.outputs) < len(self.tickets):
            place, event = await self._inbox.events.get()
            if isinstance(event, JobEnd):
                try:
                    self.outputs[place] = event.job.output()
                except CirciusError as error:
                    raise as_api_error(error) from error
            yield place, event

    async def results(self) -> list[RequestOutput]:
        """The results of all requests, in their order, when they have ended."""
        async for _ in self.events():
            pass
        return [self.outputs[place] for place in range(len(self.tickets))]

    def cancel(self) -> None:
        """Ends what is still running."""
        for place, ticket in enumerate(self.tickets):
            if place not in self.outputs:
                self._worker.cancel(ticket)


@asynccontextmanager
async def generation(
    worker: Worker, requests: Sequence[Request], *, salt: bytes, adapter: Adapter | None, screen: Screen | None = None
) -> AsyncIterator[Generation]:
    """The requests on their way; whatever has not ended when the block is left is cancelled.

    screen: what looks at the answers before they are told.

    Raises:
        ApiError: the queue is full, or the server is about to stop.
    """
    inbox, tickets = Inbox(), list[Ticket]()
    try:
        for request in requests:
            ticket = worker.submit(request, inbox, salt=salt, adapter=adapter)
            inbox.places[ticket] = len(tickets)
            tickets.append(ticket)
    except CirciusError as error:
        for ticket in tickets:
            worker.cancel(ticket)
        raise as_api_error(error) from error
    own = Generation(worker, inbox, tickets, screen)
    try:
        yield own
    finally:
        own.cancel()


def _without(output: RequestOutput, place: int, refused: Mapping[tuple[int, int], str]) -> RequestOutput:
    """The result with what is shown instead of answers that are not: no token of those is left in it."""
    answers = [
        answer
        if (shown := refused.get((place, answer.index))) is None
        else replace(
            answer, text=shown, token_ids=[], logprobs=None if answer.logprobs is None else [], cumulative_logprob=None,
            finish_reason="content_filter", stop_reason=None, tool_calls=[],
        )
        for answer in output.outputs
    ]  # fmt: skip
    return replace(output, outputs=answers)


async def unless_gone(http: HttpRequest, work: Callable[[], Awaitable[Result]]) -> Result:
    """What `work` gives; it is cancelled as soon as the client has gone.

    Raises:
        ApiError: the client has gone (status 499), so nobody will see it.
    """
    task = asyncio.ensure_future(work())
    gone = asyncio.ensure_future(_until_gone(http))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ApiError("the client has closed the connection", status=499, code="client_gone")
    finally:
        for each in (task, gone):
            each.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await each


async def _until_gone(http: HttpRequest) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass
