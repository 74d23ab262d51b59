"""Server-sent events: pieces of JSON as they are made, and an end that clients know."""

import json
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
    text = (
        body.model_dump_json(exclude_unset=True)
        if isinstance(body, BaseModel)
        else json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    )
    return b"data: " + text.encode() + b"\n\n"


async def _told(events: AsyncIterator[bytes], *, ends_with_done: bool) -> AsyncIterator[bytes]:
    """The events; an error in their midst becomes the last of them, since the status was sent long ago."""
    try:
        async for each in events:
            yield each
    except ApiError as error:
        yield event(error.body)
    if ends_with_done:
        yield DONE


def stream(events: AsyncIterator[bytes], *, ends_with_done: bool = True) -> StreamingResponse:
    told = _told(events, ends_with_done=ends_with_done)
    return StreamingResponse(told, media_type="text/event-stream", headers=_HEADERS)
