"""Which tokens of which streams the next forward computes. No torch here.

Streams that are being decoded take part in every step. Prompts are read beside them in chunks of `mixed_chunk_size`
tokens, so that nobody waits for longer than such a chunk takes; alone, in chunks of `chunk_size`. Those who came first
are served first, and when pages run out it is the last to come that gives its own back and begins again later: so the
first always advances, and nobody waits for ever.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

from circius.base.config import Window
from circius.base.errors import InvalidInputError
from circius.engine.pool import PagePool
from circius.engine.prefix import PAGE
from circius.engine.stream import Stream, most_pages


@dataclass(frozen=True, kw_only=True)
class Work:
    """Some next tokens of a stream, and tokens guessed to follow the last known one."""

    stream: Stream
    n_tokens: int
    reaches_end: bool
    """Whether the token behind the last known one can be drawn after it."""
    draft: Sequence[int] = ()

    @classmethod
    def of(cls, stream: Stream, n_tokens: int, draft: Sequence[int] = ()) -> Self:
        return cls(stream=stream, n_tokens=n_tokens, reaches_end=n_tokens == stream.n_new, draft=draft)

    @property
    def tokens(self) -> list[int]:
        at = self.stream.n_cached
        return [*self.stream.tokens[at : at + self.n_tokens], *self.draft]


@dataclass(frozen=True, kw_only=True)
class SchedulerLimits:
    """max_streams: computed at once. chunk_size, mixed_chunk_size: tokens of prompts in one step, alone and beside
    streams that are being decoded."""

    max_streams: int
    chunk_size: int
    mixed_chunk_size: int

    def __post_init__(self) -> None:
        for name in ("max_streams", "chunk_size", "mixed_chunk_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidInputError(f"{name} must be a whole number, 1 or more, got {value!r}")


Drafts = Callable[[Sequence[Stream]], Sequence[Sequence[int]]]


def no_drafts(streams: Sequence[Stream]) -> Sequence[Sequence[int]]:
    return [()] * len(streams)


@dataclass
class Scheduler:
    """Streams that wait and streams that run, and the pages of the latter."""

    pool: PagePool
    window: Window
    limits: SchedulerLimits
    waiting: deque[Stream] = field(default_factory=deque)
    running: list[Stream] = field(default_factory=list)
    """The first to come first."""
    n_preemptions: int = 0

    def __post_init__(self) -> None:
        self._arrivals: dict[Stream, int] = {}
        self._n_arrived = 0

    def check_fits(self, n_tokens: int) -> None:
        """Refuses a text of more tokens than all pages together can take.

        Raises:
            InvalidInputError: it never could be computed.
        """
        needed = most_pages(n_tokens, self.window, max(self.limits.chunk_size, self.limits.mixed_chunk_size))
        if needed > self.pool.n_pages:
            raise InvalidInputError(
                f"{n_tokens} tokens of prompt and answer need {needed * PAGE} places in the cache, and it has "
                f"{self.pool.n_pages * PAGE}: ask for fewer tokens, or give the cache more memory"
            )

    def submit(self, stream: Stream) -> None:
        """Puts a stream at the end of those that wait; `check_fits` has let it pass."""
        self._n_arrived += 1
        self._arrivals[stream] = self._n_arrived
        self.waiting.append(stream)

    def fork(self, source: Stream, stream: Stream) -> tuple[int, int] | None:
        """Lets a new stream go on beside the one whose beginning it shares, if there is a place for it; else it waits,
        and finds what it shares later. Returns a page to copy and where to, if there is one (`Stream.fork`)."""
        self.submit(stream)
        n_pages = 1 + sum(other.may_need_more for other in self.running)
        if len(self.running) >= self.limits.max_streams or self.pool.n_free < n_pages or len(self.waiting) > 1:
            return None
        self.waiting.pop()
        copy = source.fork(self.pool, stream)
        self.running.append(stream)
        return copy

    def remove(self, stream: Stream) -> None:
        """Forgets a stream that has ended or is not wanted any more, and gives its pages back."""
        del self._arrivals[stream]
        if stream in self.running:
            self.running.remove(stream)
            stream.leave(self.pool)
        else:
            self.waiting.remove(stream)

    def plan(self, draft: Drafts = no_drafts) -> list[Work]:
        """The work of the next step, at most one piece for each stream; the pages for it are taken.

        draft: asked for guesses only in steps without prompts; guesses for which there are no pages are left out.
        """
        for stream in self.running:
            stream.drop_unseen(self.pool, self.window)
        n_preempted = self.n_preemptions
        works = list(self._continued())
        if self.n_preemptions == n_preempted:
            works += self._admitted(self._room(works))
        if works and all(work.stream.n_new == 1 for work in works):
            works = self._with_drafts(works, draft)
        return works

    def advance(self, work: Work, n_accepted: int = 0) -> None:
        """Counts a piece of work as done, with so many tokens of its draft, which the stream's text has by now."""
        work.stream.advance(self.pool, work.n_tokens + n_accepted)

    def check(self) -> None:
        """Asserts that no page is lost, and that nobody holds more than it should."""
        self.pool.check([stream.pages for stream in self.running])
        assert not any(stream.pages for stream in self.waiting)
        assert len(self.running) <= self.limits.max_streams
        assert self.running == sorted(self.running, key=self._arrivals.__getitem__)
        assert self._arrivals.keys() == {*self.running, *self.waiting}

    def _room(self, works: Sequence[Work]) -> int:
        """The tokens of prompts that the step can still take."""
        n_decoded = sum(stream.n_new == 1 for stream in self.running)
        size = self.limits.mixed_chunk_size if n_decoded else self.limits.chunk_size
        return size - sum(work.n_tokens for work in works if work.stream.n_new > 1)

    def _continued(self) -> Iterator[Work]:
        room = self._room(())
        index = 0
        while index < len(self.running):  # the last ones may be preempted on the way
            stream = self.running[index]
            is_decoded = stream.n_new == 1
            n_tokens = 1 if is_decoded else min(room, stream.n_new)
            if n_tokens and self._make_room(stream, n_tokens):
                room -= 0 if is_decoded else n_tokens
                yield Work.of(stream, n_tokens)
            index += 1

    def _make_room(self, stream: Stream, n_tokens: int) -> bool:
        """Takes the pages for some more tokens, if need be from the last to come; False if that is the stream."""
        while stream.pages_lacking(n_tokens) > self.pool.n_free:
            last = self.running.pop()
            last.leave(self.pool)
            self.n_preemptions += 1
            self._wait_again(last)
            if last is stream:
                return False
        stream.grow(self.pool, n_tokens)
        return True

    def _wait_again(self, stream: Stream) -> None:
        """In front of all that came later."""
        arrival = self._arrivals[stream]
        place = sum(self._arrivals[other] < arrival for other in self.waiting)
        self.waiting.insert(place, stream)

    def _admitted(self, room: int) -> Iterator[Work]:
        while room > 0 and self.waiting and len(self.running) < self.limits.max_streams:
            stream = self.waiting[0]
            stream.find(self.pool, self.window)
            n_tokens = min(room, stream.n_new)
            # Whoever runs should be able to take a page more before somebody has to leave.
            n_reserved = sum(other.may_need_more for other in self.running)
            if stream.pages_lacking(n_tokens) + n_reserved > self.pool.n_free and self.running:
                stream.leave(self.pool)
                return
            self.waiting.popleft()
            stream.grow(self.pool, n_tokens)
            self.running.append(stream)
            room -= n_tokens
            yield Work.of(stream, n_tokens)

    def _with_drafts(self, works: Sequence[Work], draft: Drafts) -> list[Work]:
        drafted = []
        for work, guess in zip(works, draft([work.stream for work in works]), strict=True):
            if guess and work.stream.pages_lacking(1 + len(guess)) <= self.pool.n_free:
                work.stream.grow(self.pool, 1 + len(guess))
                drafted.append(Work.of(work.stream, 1, guess))
            else:
                drafted.append(work)
        return drafted
