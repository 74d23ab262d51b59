"""The batches of the next step, made while this one is computed."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

from circius.train.world import World

B = TypeVar("B")


class Drawing(Protocol[B]):
    """What a feed draws from: `circius.train.stream.Stream`, say."""

    def next(self, n_batches: int, own: Sequence[int] | None = None) -> list[B]: ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: Mapping[str, Any]) -> None: ...


class Portion(NamedTuple, Generic[B]):
    """A step's batches for this process, and where the stream is when they are used up."""

    batches: list[B]
    state: dict[str, Any]
    waited_s: float


class Feed(Generic[B]):
    """Draws the batches of a step ahead, in a thread of its own; of every step all of them, and makes this process's.

    From the first step on the stream belongs to the feed: nobody else may draw from it or move it.
    """

    def __init__(self, stream: Drawing[B], *, n_batches: int, world: World) -> None:
        self._stream, self._n_batches = stream, n_batches
        self._own = range(world.data_rank, n_batches, world.n_data)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="feed")
        self._ahead: Future[tuple[list[B], dict[str, Any]]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)

    def next(self) -> Portion[B]:
        """The batches of the next step."""
        began = time.perf_counter()
        ahead = self._ahead or self._pool.submit(self._draw)
        batches, state = ahead.result()
        waited_s = time.perf_counter() - began
        self._ahead = self._pool.submit(self._draw)
        return Portion(batches, state, waited_s)

    def _draw(self) -> tuple[list[B], dict[str, Any]]:
        return self._stream.next(self._n_batches, self._own), self._stream.state()
