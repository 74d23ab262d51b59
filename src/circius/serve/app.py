"""The application: routes, errors, and the model that is loaded while the server already answers."""

import logging
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request as HttpRequest
from starlette.responses import HTMLResponse, Response

from circius.engine.engine import Engine
from circius.engine.llm import LLM
from circius.engine.worker import Event, Ticket, Worker
from circius.serve import adapters, chat, completions, embeddings, health, moderation, responses, tokens
from circius.serve.config import ServeConfig
from circius.serve.errors import ApiError
from circius.serve.generation import deliver
from circius.serve.metrics import Metrics
from circius.serve.middleware import Gate
from circius.serve.moderation import Moderation
from circius.serve.state import State

log = logging.getLogger(__name__)
Load = Callable[[], tuple[LLM, Engine]]


def create_app(config: ServeConfig, load: Load) -> FastAPI:
    """The server's application. `load` is called in a thread once the server has begun to listen.

    When the application shuts down, it takes nothing on any more and waits `config.drain_s` for what is open.
    """
    state = State(config, Metrics(config.names[0]))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loader = threading.Thread(target=_load, args=(state, load), name="circius-load", daemon=True)
        loader.start()
        yield
        state.is_draining = True
        if state.is_healthy:
            state.worker.stop(timeout_s=0)  # the web server has waited for the answers already

    app = FastAPI(
        title="circius", lifespan=lifespan, docs_url="/docs", redoc_url=None,
        description="Mistral 7B with its window, in OpenAI's protocol.",
    )  # fmt: skip
    app.state.circius = state
    for module in (completions, chat, responses, embeddings, moderation, tokens, health, adapters):
        app.include_router(module.router)
    _add_page(app)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)
    app.add_middleware(Gate, config=config)
    if config.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(config.origins), allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "x-request-id"],
        )  # fmt: skip
    return app


def _load(state: State, load: Load) -> None:
    config, metrics = state.config, state.metrics

    def wake(events: list[tuple[Ticket, Event]]) -> None:
        metrics.heard(events)
        deliver(events)

    try:
        llm, engine = load()
        state.adapters = {name: llm.read_adapter(folder) for name, folder in config.adapters}
        worker = Worker(engine, wake=wake, max_open=config.max_open)
        moderation = Moderation(llm, worker, metrics, prompts=config.prompt_policy, answers=config.answer_policy)
    except Exception as error:  # noqa: BLE001 - whatever it was, the server must not wait for ever
        state.failed(error)
        return
    metrics.worker = worker
    worker.start()
    state.loaded(llm, worker, moderation)


def _add_page(app: FastAPI) -> None:
    folder = files("circius.serve") / "page"
    kinds = {"app.js": "text/javascript", "markdown.js": "text/javascript", "style.css": "text/css"}

    @app.get("/", include_in_schema=False)
    def page() -> Response:
        return HTMLResponse((folder / "index.html").read_text(encoding="utf-8"), headers=_PAGE_HEADERS)

    @app.get("/page/{name}", include_in_schema=False)
    def part(name: str) -> Response:
        if name not in kinds:
            raise ApiError(f"there is no page {name!r}", status=404)
        return Response((folder / name).read_bytes(), media_type=kinds[name], headers=_PAGE_HEADERS)


_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""Nothing from elsewhere is loaded or run, whatever an answer says."""


async def _api_error(_: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def _validation_error(_: HttpRequest, error: Exception) -> Response:
    """The first thing that is wrong with a body, with the field's name."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    param = _place(first["loc"][1:], error.body)
    if first["type"] == "extra_forbidden":
        message = f"{param} is not known here, and nothing is ignored: leave it out"
    elif first["type"] == "json_invalid":
        message, param = f"the body is not valid JSON: {first.get('ctx', {}).get('error', first['msg'])}", None
    elif first["type"] == "missing" and param is None:
        message = "the body is missing: send a JSON object"
    else:
        message = f"{param or 'the body'}: {first['msg'][:1].lower()}{first['msg'][1:]}"
    return ApiError(message, param=param, code="unknown_field" if "not known" in message else None).response()


def _place(path: Sequence[str | int], body: Any) -> str | None:
    """The field that a path of pydantic's leads to, such as messages[0].role; the branches of a union, which stand in
    such paths too, are left out.

    >>> _place(("messages", 0, "content", "str"), {"messages": [{"content": 5}]})
    'messages[0].content'
    >>> _place(("messages", 0, "role"), {"messages": [{}]}), _place((), {})
    ('messages[0].role', None)
    """
    place = ""
    for index, part in enumerate(path):
        if isinstance(part, int) and isinstance(body, list):
            place += f"[{part}]"
            body = body[part] if part < len(body) else None
        elif isinstance(body, dict) and (part in body or index == len(path) - 1):
            place += f".{part}" if place else f"{part}"
            body = body.get(part)
    return place or None


async def _http_error(_: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return ApiError(str(error.detail), status=error.status_code, headers=error.headers).response()


async def _unexpected(_: HttpRequest, error: Exception) -> Response:
    log.exception("a request failed", exc_info=error)
    return ApiError("something went wrong here; the server's log says what", status=500, code="internal").response()
