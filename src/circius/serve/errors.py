"""Errors as OpenAI's clients expect them, and which of ours becomes which."""

import re
from collections.abc import Mapping

from fastapi.responses import JSONResponse

from circius.base.errors import CirciusError, ContextOverflowError, InvalidInputError, ModelNotFoundError
from circius.engine.params import SamplingParams
from circius.engine.worker import BusyError, StoppingError


class ApiError(Exception):
    """An answer other than 200.

    param: the field of the request that is wrong. code: a short name that programs can look at.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.param, self.code, self.headers = message, status, param, code, headers

    @property
    def body(self) -> dict[str, object]:
        kinds = {401: "authentication_error", 404: "not_found_error", 413: "invalid_request_error"}
        kind = kinds.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, status_code=self.status, headers=dict(self.headers or {}))


def as_api_error(error: CirciusError, *, param: str | None = None) -> ApiError:
    """What a client is told: its own mistakes with 400, a full queue with 503, the rest with 500."""
    if isinstance(error, BusyError | StoppingError):
        code = "queue_full" if isinstance(error, BusyError) else "shutting_down"
        return ApiError(str(error), status=503, code=code, headers={"Retry-After": "1"})
    if isinstance(error, ContextOverflowError):
        return ApiError(str(error), param=param or "messages", code="context_length_exceeded")
    if isinstance(error, ModelNotFoundError):
        return ApiError(str(error), status=404, param="model", code="model_not_found")
    if isinstance(error, InvalidInputError):
        return ApiError(str(error), param=named_param(str(error)) or param)
    return ApiError(str(error), status=500, code="generation_failed")


def named_param(message: str) -> str | None:
    """The field with which a message of ours begins.

    >>> named_param("top_p must be a number, above 0 and at most 1, got 2"), named_param("messages[1]: empty")
    ('top_p', 'messages[1]')
    >>> named_param("structured_outputs.json: /not: ..."), named_param("the prompt is empty")
    ('structured_outputs', None)
    >>> named_param("tools[1]: function.name: there is a 'now' already"), named_param("tool_choice needs tools")
    ('tools[1]', 'tool_choice')
    """
    first = message.split(maxsplit=1)[0].rstrip(":") if message else ""
    name = re.split(r"[\[.]", first)[0]
    if name in SamplingParams.__dataclass_fields__ or name in ("tool_choice", "parallel_tool_calls"):
        return name
    return first if first == "tools" or (name in ("messages", "tools") and "[" in first) else None
