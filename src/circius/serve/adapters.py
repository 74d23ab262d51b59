"""Adapters beside the model: requests choose one by its name, as if it were a model of its own.

They are loaded at the start, or while the server runs, by vLLM's calls `/v1/load_lora_adapter` and
`/v1/unload_lora_adapter`: only from inside a folder that was named at the start, and only by administrators.
"""

import threading
from pathlib import Path

from fastapi import APIRouter
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from circius.base.errors import CirciusError
from circius.model import Adapter
from circius.serve.errors import ApiError
from circius.serve.fields import Strict
from circius.serve.state import State, state_of

router = APIRouter()


class LoadFields(Strict):
    """lora_path: a folder inside the one that the server was given for adapters."""

    lora_name: str = Field(min_length=1, max_length=256, pattern=r"^[\w./:-]+$")
    lora_path: str = Field(min_length=1, max_length=4096)


class UnloadFields(Strict):
    lora_name: str


_loading = threading.Lock()
"""One adapter is read at a time: what is free is counted before."""


@router.post("/v1/load_lora_adapter", tags=["adapters"])
async def load(fields: LoadFields, http: HttpRequest) -> Response:
    """Reads an adapter; requests may name it as soon as this has answered."""
    state = _allowed(http)
    adapter = await run_in_threadpool(_read, state, fields)
    return JSONResponse({"status": "loaded", "lora_name": fields.lora_name, "rank": adapter.config.rank})


@router.post("/v1/unload_lora_adapter", tags=["adapters"])
def unload(fields: UnloadFields, http: HttpRequest) -> Response:
    """Forgets an adapter. Requests that have begun with it go on."""
    state = _allowed(http)
    if state.adapters.pop(fields.lora_name, None) is None:
        raise ApiError(
            f"there is no adapter {fields.lora_name!r} here: {', '.join(state.adapters) or 'none'}",
            status=404, param="lora_name", code="adapter_not_found",
        )  # fmt: skip
    return JSONResponse({"status": "unloaded", "lora_name": fields.lora_name})


def _allowed(http: HttpRequest) -> State:
    """The state, for an administrator of a server that loads adapters while it runs.

    Raises:
        ApiError: it does not (404), or this is none (403).
    """
    state = state_of(http)
    if state.config.adapter_folder is None:
        raise ApiError("this server loads adapters only when it starts: see --adapter-folder", status=404)
    if state.config.admin_keys and state.key_of(http) not in state.config.admin_keys:
        raise ApiError("this takes an administrator's key", status=403, code="not_an_administrator")
    return state


def _read(state: State, fields: LoadFields) -> Adapter:
    folder = _inside(state.config.adapter_folder, fields.lora_path)
    with _loading:
        if fields.lora_name in state.names:
            raise ApiError(
                f"the name {fields.lora_name!r} is taken: unload it first, or choose another",
                param="lora_name", code="adapter_exists",
            )  # fmt: skip
        if len(state.adapters) >= state.config.max_adapters:
            raise ApiError(
                f"there are {len(state.adapters)} adapters, and no more than {state.config.max_adapters} may be: "
                "unload one first", status=409, code="too_many_adapters",
            )  # fmt: skip
        try:
            adapter = state.llm.read_adapter(folder)
        except CirciusError as error:
            raise ApiError(str(error), param="lora_path", code="bad_adapter") from error
        state.adapters[fields.lora_name] = adapter
        return adapter


def _inside(folder: Path | None, path: str) -> Path:
    """Where an adapter is; links that lead out of the folder are not followed."""
    assert folder is not None
    root = folder.resolve()
    try:
        found = (root / path).resolve()
        if found.is_relative_to(root) and found.is_dir():
            return found
    except (OSError, ValueError):
        pass
    raise ApiError(
        f"{path!r} is no folder inside the server's folder of adapters", status=404, param="lora_path",
        code="adapter_not_found",
    )  # fmt: skip
