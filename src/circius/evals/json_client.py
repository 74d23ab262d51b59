"""Posting JSON to a server that may be busy for a while. No torch here."""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from circius.base.errors import CirciusError, InvalidInputError

Sleep = Callable[[float], object]

_BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Answers that say nothing about the request: it is worth another try."""
_MOST_SHOWN = 300


class ServerError(CirciusError):
    """A server did not answer, or refused what it was asked."""


class JsonClient:
    """Posts to one server. Every method may be called from several threads at once."""

    def __init__(
        self,
        base: str,
        *,
        key: str | None = None,
        timeout_s: float = 600.0,
        n_tries: int = 6,
        first_wait_s: float = 1.0,
        sleep: Sleep = time.sleep,
    ) -> None:
        """base: such as `http://127.0.0.1:8000/v1`; without a path, `/v1` is meant. key: sent as a bearer token.

        Raises:
            InvalidInputError: no http or https address.
        """
        self.base = _checked_base(base)
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._timeout_s, self._n_tries, self._first_wait_s, self._sleep = timeout_s, n_tries, first_wait_s, sleep

    def post(self, route: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The object that the server answers with; a busy server, or one that is away, is asked again.

        Raises:
            ServerError: it refused, or was still away after the last try.
        """
        url = f"{self.base}/{route}"
        data = json.dumps(body).encode()
        for left in range(self._n_tries - 1, -1, -1):
            wait_s = self._first_wait_s * 2 ** (self._n_tries - 1 - left)
            try:
                request = urllib.request.Request(url, data=data, headers=self._headers, method="POST")
                with urllib.request.urlopen(request, timeout=self._timeout_s) as reply:
                    return _object(reply.read(), url)
            except urllib.error.HTTPError as error:
                if error.code not in _BUSY or not left:
                    raise ServerError(f"{url} answered {error.code}: {_message(error)}") from error
                wait_s = _asked_wait(error) or wait_s
            except (OSError, http.client.HTTPException) as error:
                if not left:
                    raise ServerError(
                        f"{url} could not be reached in {self._n_tries} tries: {getattr(error, 'reason', error)}"
                    ) from error
            self._sleep(wait_s)
        raise AssertionError("the last try answers or raises")


def _checked_base(base: str) -> str:
    scheme, _, rest = base.partition("://")
    if scheme not in ("http", "https") or not rest.strip("/"):
        raise InvalidInputError(f"an endpoint is an address such as http://127.0.0.1:8000/v1, got {base!r}")
    bare = base.rstrip("/")
    return bare if "/" in bare.partition("://")[2] else f"{bare}/v1"


def _object(raw: bytes, url: str) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ServerError(f"{url} answered something that is no JSON object: {raw[:_MOST_SHOWN]!r}")
    return found


def _message(error: urllib.error.HTTPError) -> str:
    """What the server says is wrong, by OpenAI's form if it keeps to that."""
    raw = error.read().decode("utf-8", errors="replace")
    try:
        said = json.loads(raw)
        told = said.get("error", said) if isinstance(said, dict) else said
        text = told.get("message", told) if isinstance(told, dict) else told
    except ValueError:
        text = raw
    return str(text)[:_MOST_SHOWN] or error.reason


def _asked_wait(error: urllib.error.HTTPError) -> float | None:
    """The seconds that the server asks to be left alone, if it says so in seconds."""
    asked = (error.headers.get("Retry-After") or "").strip()
    return float(asked) if asked.isdigit() else None
