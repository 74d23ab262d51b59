"""Listening, and stopping as one should: no new requests, the open ones to their end, then the door is closed."""

import asyncio
import logging
import signal
import sys
from types import FrameType

import uvicorn

from circius.serve.app import Load, create_app
from circius.serve.config import ServeConfig


class _Server(uvicorn.Server):
    """Says on /ready that it is about to stop, as soon as it is asked to."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.config.app.state.circius.is_draining = True  # type: ignore[union-attr]
        super().handle_exit(sig, frame)


def run(config: ServeConfig, load: Load) -> int:
    """Serves until SIGTERM or Ctrl-C; the exit code. A second signal aborts what is still open.

    Raises:
        Exception: whatever kept the model from being loaded.
    """
    _log_to_stderr()
    app = create_app(config, load)
    server = _Server(
        uvicorn.Config(
            app, host=config.host, port=config.port, log_config=None, access_log=False, server_header=False,
            timeout_graceful_shutdown=max(1, round(config.drain_s)), timeout_keep_alive=75,
            limit_concurrency=None, h11_max_incomplete_event_size=64 << 10,
        )
    )  # fmt: skip
    state = app.state.circius

    def end_server() -> None:
        server.should_exit = True

    state.end_server = end_server
    try:
        asyncio.run(server.serve())
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    if state.error is not None:
        raise state.error
    return 0 if server.started else 1


def _log_to_stderr() -> None:
    logging.disable(logging.NOTSET)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name, level in (("circius", logging.INFO), ("uvicorn.error", logging.INFO)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
