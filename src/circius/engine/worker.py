"""An engine in a thread of its own, for callers in other threads and on event loops.

What an engine says is gathered for each step and delivered at once: a loop is woken once a step, not once a token.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from circius.base.errors import CirciusError
from circius.engine.answer import Answer
from circius.engine.engine import Engine
from circius.engine.job import Job, nobody
from circius.engine.outputs import FinishReason, Logprobs
from circius.engine.request import Request
from circius.model import Adapter
from circius.text.tool_reader import CallPiece

log = logging.getLogger(__name__)


class BusyError(CirciusError):
    """There are as many requests as may wait."""


class StoppingError(CirciusError):
    """The worker takes nothing on any more."""


@dataclass(frozen=True)
class Token:
    """A new token of an answer: its id, the text that may be shown now, its log-probability if it was asked for, and
    pieces of the calls that it makes."""

    answer: int
    token: int
    text: str
    logprobs: Logprobs | None
    calls: tuple[CallPiece, ...] = ()


@dataclass(frozen=True)
class AnswerEnd:
    """An answer has ended by itself, for this reason. One that was aborted ends with its job."""

    answer: int
    finish_reason: FinishReason
    stop_reason: int | str | None


@dataclass(frozen=True)
class JobEnd:
    """The whole request has ended: `job.output()` gives its result or raises its error."""

    job: Job


Event = Token | AnswerEnd | JobEnd
Wake = Callable[[list[tuple["Ticket", Event]]], object]
"""Called from the worker's thread, after each step, with all that happened in it."""


class Ticket:
    """A request that was handed to a worker. `listener` is whatever the caller wants to find it by."""

    def __init__(self, request: Request, listener: object) -> None:
        self.request, self.listener = request, listener
        self.job: Job | None = None
        self.is_cancelled = False


class Worker:
    """Runs an engine; `submit`, `cancel` and `call` may come from any thread.

    max_open: requests that may be open at once, running or waiting; more are refused.
    """

    def __init__(self, engine: Engine, *, wake: Wake, max_open: int) -> None:
        self.engine, self.max_open = engine, max_open
        self._wake = wake
        self._commands: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._events: list[tuple[Ticket, Event]] = []
        self._lock = threading.Lock()
        self._open: dict[Ticket, None] = {}
        self.n_refused = 0
        """Requests that were turned away because too many were open."""
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="circius-engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def n_open(self) -> int:
        """Requests that are running or waiting."""
        return len(self._open)

    def submit(
        self, request: Request, listener: object, *, salt: bytes = b"", adapter: Adapter | None = None
    ) -> Ticket:
        """Hands a request over; its events name the ticket.

        Raises:
            BusyError: there are `max_open` requests already.
            StoppingError: `stop` was called.
            InvalidInputError: the cache could never hold it.
        """
        self.engine.scheduler.check_fits(request.n_cache_tokens)  # reads only what never changes
        with self._lock:
            if self._is_stopping:
                raise StoppingError("the server is shutting down and takes no new requests")
            if len(self._open) >= self.max_open:
                self.n_refused += 1
                raise BusyError(
                    f"{len(self._open)} requests are open and no more than {self.max_open} may be: try later"
                )
            ticket = Ticket(request, listener)
            self._open[ticket] = None
        self._commands.put(lambda: self._begin(ticket, salt, adapter))
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Ends a request as it stands; it still gets its `JobEnd`. Does nothing to one that has ended."""
        self._commands.put(lambda: self._cancel(ticket))

    def call(self, function: Callable[[Engine], object]) -> "Future[object]":
        """Runs a function between two steps, with the engine to itself."""
        future: Future[object] = Future()
        if self._is_stopping:
            future.set_exception(StoppingError("the server is shutting down"))
            return future

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(self.engine))
                except Exception as error:  # noqa: BLE001 - whoever waits for the result gets it
                    future.set_exception(error)

        self._commands.put(run)
        return future

    def stop(self, *, timeout_s: float) -> bool:
        """Takes nothing on any more, lets what is open end for so long, then aborts it. Whether all ended in time."""
        with self._lock:
            self._is_stopping = True
        deadline = time.monotonic() + timeout_s
        while self._open and time.monotonic() < deadline and self.is_alive:
            time.sleep(0.02)
        in_time = not self._open
        self._commands.put(None)
        self._thread.join()
        return in_time

    def _run(self) -> None:
        try:
            while self._obey():
                self.engine.step()
                self._tell()
        except BaseException as error:
            log.exception("the engine has died")
            self._fail_all(CirciusError(f"the engine has died: {type(error).__name__}: {error}"))
            raise
        for job in self.engine.jobs:
            self.engine.abort(job)
        self._fail_all(StoppingError("the server is shutting down"))

    def _fail_all(self, error: CirciusError) -> None:
        """Ends what is still open with an error, whatever state the engine is in: nobody may wait for ever."""
        with self._lock:
            self._is_stopping = True
        for ticket in list(self._open):
            self._fail(ticket, error)
        self._tell()

    def _fail(self, ticket: Ticket, error: CirciusError) -> None:
        job = Job(ticket.request, [], deliver=nobody, ended=lambda job: self._end(ticket, job))
        job.end(error)

    def _obey(self) -> bool:
        """Does what was asked for; waits for something to do if nothing is running. False to stop."""
        may_wait = not self.engine.jobs
        while True:
            try:
                command = self._commands.get(block=may_wait)
            except Empty:
                return True
            if command is None:
                return False
            command()
            self._tell()
            may_wait = not self.engine.jobs

    def _begin(self, ticket: Ticket, salt: bytes, adapter: Adapter | None) -> None:
        def deliver(_: Job, answer: Answer, text: str, token: int) -> bool:
            self._events.append((ticket, Token(answer.index, token, text, answer.last_logprobs, answer.last_calls)))
            if answer.finish_reason is not None:
                self._events.append((ticket, AnswerEnd(answer.index, answer.finish_reason, answer.stop_reason)))
            return True

        def ended(job: Job) -> None:
            self._end(ticket, job)

        try:
            ticket.job = self.engine.submit(ticket.request, deliver=deliver, ended=ended, salt=salt, adapter=adapter)
        except Exception as error:
            log.exception("a request could not begin")
            known = error if isinstance(error, CirciusError) else CirciusError(f"{type(error).__name__}: {error}")
            self._fail(ticket, known)
            return
        if ticket.is_cancelled:
            self.engine.abort(ticket.job)

    def _cancel(self, ticket: Ticket) -> None:
        ticket.is_cancelled = True
        if ticket.job is not None:
            self.engine.abort(ticket.job)

    def _end(self, ticket: Ticket, job: Job) -> None:
        with self._lock:
            self._open.pop(ticket, None)
        self._events.append((ticket, JobEnd(job)))

    def _tell(self) -> None:
        if self._events:
            events, self._events = self._events, []
            self._wake(events)
