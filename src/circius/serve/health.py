"""What tells other programs about the server: whether it lives and is ready, what it serves, how busy it is."""

import time

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from circius.serve.errors import ApiError
from circius.serve.state import state_of

router = APIRouter()
_STARTED_AT = int(time.time())


@router.get("/health", tags=["server"])
def health(http: HttpRequest) -> Response:
    """200 when the model is loaded and the engine lives, 503 before."""
    state = state_of(http)
    if state.is_healthy:
        return JSONResponse({"status": "ok"})
    return JSONResponse({"status": "loading" if state.error is None else "failed"}, status_code=503)


@router.get("/ready", tags=["server"])
def ready(http: HttpRequest) -> Response:
    """200 when a request would be taken on now; 503 while loading, and while the server is about to stop."""
    state = state_of(http)
    if state.is_ready:
        return JSONResponse({"status": "ready"})
    return JSONResponse({"status": "draining" if state.is_draining else "loading"}, status_code=503)


@router.get("/v1/models", tags=["models"])
def models(http: HttpRequest) -> Response:
    """The names that requests may use."""
    return JSONResponse({"object": "list", "data": [_model(http, name) for name in state_of(http).names]})


@router.get("/v1/models/{name:path}", tags=["models"])
def model(name: str, http: HttpRequest) -> Response:
    """One of them."""
    if name not in state_of(http).names:
        raise ApiError(f"there is no model {name!r} here", status=404, param="model", code="model_not_found")
    return JSONResponse(_model(http, name))


@router.get("/metrics", tags=["server"])
def metrics(http: HttpRequest) -> Response:
    """Prometheus' text format."""
    return Response(state_of(http).metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _model(http: HttpRequest, name: str) -> dict[str, object]:
    state = state_of(http)
    known: dict[str, object] = {"max_model_len": state.llm.context} if state.is_healthy else {}
    root = state.config.names[0]
    if (adapter := state.adapter_named(name)) is not None:
        known |= {"parent": root, "lora_rank": adapter.config.rank}
    return {"id": name, "object": "model", "created": _STARTED_AT, "owned_by": "circius", "root": root, **known}
