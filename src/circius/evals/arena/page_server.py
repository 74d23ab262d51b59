"""The page on which a person votes: on loopback, for one person, with nothing from elsewhere.

Other pages in the same browser could send requests here too. They cannot read the token that the page is given, and
without it nothing is told or kept; a name of somebody else's that leads to this machine is refused by its Host header.
"""

import json
import secrets
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

from circius.base.errors import CirciusError, InvalidInputError
from circius.evals.arena.ballot import Ballot

_KINDS = {"/": "text/html", "/app.js": "text/javascript", "/style.css": "text/css"}
_FILES = {"/": "index.html", "/app.js": "app.js", "/style.css": "style.css"}
_MOST_BODY_BYTES = 4096
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class PageServer:
    """Serves a ballot on 127.0.0.1. `url` is where; `serve` returns when `stop` was called from another thread."""

    def __init__(self, ballot: Ballot, *, port: int = 0) -> None:
        """port: 0 for any free one.

        Raises:
            CirciusError: the port is taken.
        """
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(ballot, secrets.token_urlsafe(24)))
        except OSError as error:
            raise CirciusError(f"cannot listen on 127.0.0.1 port {port}: {error.strerror or error}") from error
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def serve(self) -> None:
        """Answers until it is stopped, or Ctrl-C."""
        try:
            self._server.serve_forever(poll_interval=0.1)
        finally:
            self._server.server_close()

    def stop(self) -> None:
        """Ends `serve`."""
        self._server.shutdown()


def state_of(ballot: Ballot) -> dict[str, Any]:
    """What the page shows: a match without the names of its models, and how far one has come."""
    match = ballot.next_match()
    shown = match and {
        "id": match.id, "prompt": match.prompt.text, "first": match.answers[0], "second": match.answers[1]
    }  # fmt: skip
    return {"match": shown, "done": ballot.n_done, "total": len(ballot.matches)}


def _handler(ballot: Ballot, token: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({"/state": lambda _: state_of(ballot)}, needs_body=False)

        def do_POST(self) -> None:
            self._answer({"/vote": self._vote, "/undo": self._undo}, needs_body=True)

        def _vote(self, body: Mapping[str, Any]) -> dict[str, Any]:
            ballot.cast(str(body.get("match")), str(body.get("winner")))
            return state_of(ballot)

        def _undo(self, _: Mapping[str, Any]) -> dict[str, Any]:
            ballot.take_back()
            return state_of(ballot)

        def _answer(
            self, routes: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]], *, needs_body: bool
        ) -> None:
            host = (self.headers.get("Host") or "").rpartition(":")[0]
            if host not in ("127.0.0.1", "localhost"):
                self._send_json(HTTPStatus.FORBIDDEN, {"error": "this page is for this machine alone"})
            elif not needs_body and self.path in _KINDS:
                self._send_file()
            elif self.path not in routes:
                self._send_json(HTTPStatus.NOT_FOUND, {"error": f"there is no {self.path}"})
            elif not secrets.compare_digest(self.headers.get("X-Arena-Token") or "", token):
                self._send_json(HTTPStatus.FORBIDDEN, {"error": "this page is of an earlier run: load it again"})
            else:
                self._do(routes[self.path], needs_body=needs_body)

        def _do(self, work: Callable[[Mapping[str, Any]], dict[str, Any]], *, needs_body: bool) -> None:
            try:
                self._send_json(HTTPStatus.OK, work(self._body() if needs_body else {}))
            except InvalidInputError as error:
                self._send_json(HTTPStatus.BAD_REQUEST, {"error": str(error)})
            except CirciusError as error:  # the disk is full, say
                self._send_json(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": str(error)})

        def _body(self) -> Mapping[str, Any]:
            given = self.headers.get("Content-Length") or ""
            if not given.isdigit() or int(given) > _MOST_BODY_BYTES:
                raise InvalidInputError(f"a vote has a body of at most {_MOST_BODY_BYTES} bytes")
            try:
                found = json.loads(self.rfile.read(int(given)))
            except ValueError as error:
                raise InvalidInputError("the body is not JSON") from error
            if not isinstance(found, dict):
                raise InvalidInputError("the body is no JSON object")
            return found

        def _send_file(self) -> None:
            raw = (files("circius.evals.arena") / "page" / _FILES[self.path]).read_bytes()
            self._send(HTTPStatus.OK, f"{_KINDS[self.path]}; charset=utf-8", raw.replace(b"{{token}}", token.encode()))

        def _send_json(self, status: HTTPStatus, body: Mapping[str, Any]) -> None:
            self._send(status, "application/json", json.dumps(body).encode())

        def _send(self, status: HTTPStatus, kind: str, raw: bytes) -> None:
            self.send_response(status)
            for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(raw))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    return Handler
