"""A server of ours in this process, on a real port, with a tiny model of bytes."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import uvicorn

from circius.base.config import Window
from circius.engine.engine import Engine
from circius.engine.engine_limits import EngineLimits
from circius.engine.llm import LLM
from circius.serve.app import create_app
from circius.serve.config import ServeConfig
from circius.serve.state import State
from tests.unit.engine.tiny import byte_llm, mistral_llm

MODEL = "tiny"


class Served:
    """Where it listens, and what is behind it."""

    def __init__(self, url: str, state: State) -> None:
        self.url, self.state = url, state

    @property
    def engine(self) -> Engine:
        return self.state.worker.engine

    def check(self) -> None:
        """Asserts that the engine's books are right, asked between two steps."""
        self.state.worker.call(lambda engine: engine.check()).result(timeout=30)

    def idle(self, timeout_s: float = 30) -> None:
        """Waits until nothing runs or waits, and checks that nothing is held."""
        deadline = time.monotonic() + timeout_s
        while self.state.worker.n_open:
            assert time.monotonic() < deadline, f"{self.state.worker.n_open} requests are still open"
            time.sleep(0.01)
        self.check()
        assert self.engine.pool.n_held == 0, "an ended request holds pages"


def loader(
    folder: Path, *, window: Window = 40, context: int = 400, speculate: int = 0, cache_tokens: int = 64 * 64,
    max_streams: int = 8,
) -> Callable[[], tuple[LLM, Engine]]:  # fmt: skip
    """Loads a model of bytes."""

    def load() -> tuple[LLM, Engine]:
        limits = EngineLimits(
            cache_tokens=cache_tokens, max_streams=max_streams, chunk_size=64, mixed_chunk_size=32, speculate=speculate
        )
        return with_engine(byte_llm(folder, window=window, context=context), limits)

    return load


def tool_loader(version: str = "v3") -> Callable[[], tuple[LLM, Engine]]:
    """Loads a model of one of Mistral's own vocabularies, in which a prompt with tools is short."""
    limits = EngineLimits(cache_tokens=64 * 256, max_streams=8, chunk_size=512, mixed_chunk_size=128, speculate=4)
    return lambda: with_engine(mistral_llm(version), limits)


def with_engine(llm: LLM, limits: EngineLimits) -> tuple[LLM, Engine]:
    return llm, Engine(llm.model, limits=limits, tokenizer=llm.tokenizer)


@contextmanager
def serving(load: Callable[[], tuple[LLM, Engine]], *, waits: bool = True, **config: object) -> Iterator[Served]:
    """A running server; it is stopped when the block is left."""
    app = create_app(ServeConfig(names=(MODEL, "alias"), port=0, **config), load)  # type: ignore[arg-type]
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False, timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        while waits and httpx.get(f"{url}/health").status_code != 200:
            time.sleep(0.01)
        yield Served(url, app.state.circius)
    finally:
        server.should_exit = True
        thread.join()
