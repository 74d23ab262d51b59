"""Listening, and stopping as one should: no new requests, the open ones to their end, then the door is closed."""

import asyncio
import logging
import signal
import socket
import sys
from types import FrameType

import uvicorn

from circius.base.errors import CirciusError
from circius.serve.app import Load, create_app
from circius.serve.config import ServeConfig

log = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    """Says on /ready that it is about to stop, as soon as it is asked to."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.config.app.state.circius.is_draining = True  # type: ignore[union-attr]
        # Not uvicorn's own way, which raises the signal again at the end: a server that was asked to stop and did has
        # not failed.
        self.force_exit = self.should_exit
        self.should_exit = True


def run(config: ServeConfig, load: Load) -> int:
    """Serves until SIGTERM or Ctrl-C; the exit code. A second signal aborts what is still open.

    Raises:
        CirciusError: it cannot listen there.
        Exception: whatever kept the model from being loaded.
    """
    _log_to_stderr()
    listener = _bound(config)
    app = create_app(config, load)
    server = _Server(
        uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False,
            timeout_graceful_shutdown=max(1, round(config.drain_s)), timeout_keep_alive=75,
            limit_concurrency=None, h11_max_incomplete_event_size=64 << 10,
        )
    )  # fmt: skip
    state = app.state.circius

    def end_server() -> None:
        server.should_exit = True

    state.end_server = end_server
    try:
        asyncio.run(server.serve(sockets=[listener]))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    if state.error is not None:
        raise state.error
    return 0 if server.started else 1


def _bound(config: ServeConfig) -> socket.socket:
    """The socket that the server listens on; where that is stands in the log.

    Raises:
        CirciusError: the port is taken, or the address is none of this machine's.
    """
    try:
        family = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((config.host, config.port), family=family, backlog=2048)
    except OSError as error:
        raise CirciusError(f"cannot listen on {config.host} port {config.port}: {error.strerror or error}") from error
    host = f"[{config.host}]" if ":" in config.host else config.host
    log.info("listening on http://%s:%d", host, listener.getsockname()[1])
    return listener


def _log_to_stderr() -> None:
    logging.disable(logging.NOTSET)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name, level in (("circius", logging.INFO), ("uvicorn.error", logging.INFO)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
