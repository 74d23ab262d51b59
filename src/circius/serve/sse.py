"""Server-sent events: pieces of JSON as they are made, and an end that clients know."""

from collections.abc import AsyncIterator
from typing import Any

from pydantic import BaseModel
from starlette.responses import StreamingResponse

from circius.serve.errors import ApiError

DONE = b"data: [DONE]\n\n"
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""So that neither caches nor proxies hold a stream back."""


def event(body: BaseModel | dict[str, Any]) -> bytes:
    """One event. Fields that were never set are left out, those that were set to null are shown."""
    import json

    text = (
        body.model_dump_json(exclude_unset=True)
        if isinstance(body, BaseModel)
        else json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    )
    return b"data: " + text.encode() + b"\n\n"


async def _told(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The events; an error in their midst becomes the last of them, since the status was sent long ago."""
    try:
        async for each in events:
            yield each
    except ApiError as error:
        yield event(error.body)
    yield DONE


def stream(events: AsyncIterator[bytes]) -> StreamingResponse:
    return StreamingResponse(_told(events), media_type="text/event-stream", headers=_HEADERS)
