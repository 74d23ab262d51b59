"""What happens to every request before a route sees it: an id, a key, a limit on size and time, a line in the log."""

import asyncio
import hmac
import json
import logging
import re
import time
import uuid
from collections.abc import Sequence
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from circius.serve.config import ServeConfig
from circius.serve.errors import ApiError

log = logging.getLogger("circius.access")
OPEN_PATHS = frozenset({"/", "/health", "/ready", "/metrics"})
"""Those that need no key: whether the server lives, how busy it is, and the page, which asks for one."""
_PAGE = "/page/"
_SAFE_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)


class Gate:
    """Checks keys and sizes, gives every request an id, and writes a line when it has ended.

    The line has no word of what was asked or said.
    """

    def __init__(self, app: ASGIApp, config: ServeConfig) -> None:
        self._app, self._config = app, config
        self._keys = [key.encode() for key in (*config.keys, *config.admin_keys)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        own_id = _request_id(scope)
        began_at, status = time.monotonic(), 500

        body = _Limited(receive, self._config.max_body_bytes)

        async def tell(message: Message) -> None:
            nonlocal status
            if body.is_over:  # whatever the route made of a body that broke off
                return
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = own_id
                if "circius.moderation" in scope:
                    headers["X-Moderation"] = scope["circius.moderation"]
            await send(message)

        try:
            self._check_key(scope)
            self._check_length(scope)
            async with asyncio.timeout(self._config.timeout_s):
                await self._app(scope, body, tell)
            if body.is_over:
                raise _too_large(self._config.max_body_bytes)
        except ApiError as error:
            body.is_over = False
            await error.response()(scope, receive, tell)
        except TimeoutError:
            if status == 500:
                late = ApiError(
                    f"the request took longer than {self._config.timeout_s:g} s", status=504, code="timeout"
                )
                await late.response()(scope, receive, tell)
        finally:
            _write_line(scope, own_id, status, time.monotonic() - began_at)

    def _check_key(self, scope: Scope) -> None:
        key, path = self._known_key(scope), scope["path"]
        if key is not None:
            scope["circius.key"] = key
        elif self._config.keys and not (path in OPEN_PATHS or path.startswith(_PAGE) or scope["method"] == "OPTIONS"):
            raise ApiError(
                "no valid API key: send the header 'Authorization: Bearer KEY'",
                status=401,
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _known_key(self, scope: Scope) -> str | None:
        """The key that a request brings, if it is a client's or an administrator's."""
        kind, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        # Every key is compared, each in the same time whatever it is.
        matches = [hmac.compare_digest(given.strip().encode(), own) for own in self._keys]
        return given.strip() if kind.lower() == "bearer" and any(matches) else None

    def _check_length(self, scope: Scope) -> None:
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdigit() and int(length) > self._config.max_body_bytes:
            raise _too_large(self._config.max_body_bytes)


class _Limited:
    """The body of a request, up to a limit: a length that was not announced is counted as it comes."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._most, self._n_read = receive, most, 0
        self.is_over = False

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._n_read += len(message.get("body", b""))
            if self._n_read > self._most:
                self.is_over = True
                raise _too_large(self._most)
        return message


def _too_large(most: int) -> ApiError:
    return ApiError(f"the body of a request may have {most} bytes", status=413, code="request_too_large")


def _request_id(scope: Scope) -> str:
    """The client's own, if it is a plain word, else a new one."""
    given = Headers(scope=scope).get("x-request-id", "")
    return given if _SAFE_ID.fullmatch(given) else uuid.uuid4().hex


def _write_line(scope: Scope, own_id: str, status: int, seconds: float) -> None:
    client: Sequence[Any] = scope.get("client") or ("",)
    usage = scope.get("circius.usage")
    line = {
        "request_id": own_id,
        "client": client[0],
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "seconds": round(seconds, 4),
    }
    if usage is not None:
        line |= {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    if "circius.moderation" in scope:
        line["moderation"] = scope["circius.moderation"]
    log.info(json.dumps(line))
