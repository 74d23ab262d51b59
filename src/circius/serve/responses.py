"""`POST /v1/responses`: OpenAI's newer form of a chat, without anything kept between two calls."""

import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from circius.engine.llm import LLM
from circius.engine.outputs import RequestOutput
from circius.engine.request import Request
from circius.engine.worker import Token
from circius.model import Adapter
from circius.serve import chat
from circius.serve.errors import ApiError
from circius.serve.generation import generation, new_id, salt_of, unless_gone
from circius.serve.response_input import NamedFunctionTool, ResponseFields, TextFormat
from circius.serve.response_items import Items
from circius.serve.sse import event, stream
from circius.serve.state import state_of
from circius.text.tool_reader import CallPiece

router = APIRouter()


@router.post("/v1/responses", tags=["generation"])
async def create_response(fields: ResponseFields, http: HttpRequest) -> Response:
    """Answers a text or a conversation. Nothing is stored: `previous_response_id` is not known here."""
    state = state_of(http)
    llm, adapter = state.llm_named(fields.model), state.adapter_named(fields.model)
    request = await run_in_threadpool(_request_of, llm, fields)
    await state.moderation.check_prompts(http, [request])
    salt, screen = salt_of(state.key_of(http), None), state.moderation.screen(http)
    reply = _Reply(fields)
    if fields.stream:
        return stream(_events(http, request, salt, adapter, reply), ends_with_done=False)

    async def result() -> RequestOutput:
        async with generation(state.worker, [request], salt=salt, adapter=adapter, screen=screen) as own:
            return (await own.results())[0]

    output = await unless_gone(http, result)
    state.note_usage(http, [output])
    return JSONResponse(reply.whole(output))


async def _events(
    http: HttpRequest, request: Request, salt: bytes, adapter: Adapter | None, reply: "_Reply"
) -> AsyncIterator[bytes]:
    """The events that OpenAI's clients know, numbered."""
    state = state_of(http)
    screen = state.moderation.screen(http)
    async with generation(state.worker, [request], salt=salt, adapter=adapter, screen=screen) as own:
        items = Items(reply.event)
        yield reply.event("response.created", response=reply.empty())
        yield reply.event("response.in_progress", response=reply.empty())
        for told in [] if reply.fields.tools else items.open_message():
            yield told
        async for _, each in own.events():
            for told in items.add(each.text, each.calls) if isinstance(each, Token) else ():
                yield told
        output = own.outputs[0]
        state.note_usage(http, [output])
        status = status_of(output)
        for told in items.end(status):
            yield told
        yield reply.event(f"response.{status}", response=reply.body_of(output, items.made))


def _request_of(llm: LLM, fields: ResponseFields) -> Request:
    try:
        return chat.request_of(llm, fields.as_chat())
    except ApiError as error:
        if (error.param or "").startswith("messages"):
            error.param = "input"  # what the messages were made of
        raise


def _untold(kind: str, **body: Any) -> bytes:
    return b""


def status_of(output: RequestOutput) -> str:
    """Whether the answer came to its own end."""
    return "completed" if output.outputs[0].finish_reason in ("stop", "tool_calls") else "incomplete"


class _Reply:
    """The bodies of one response."""

    def __init__(self, fields: ResponseFields) -> None:
        self.fields = fields
        self._id = new_id("resp")
        self._created_at = time.time()
        self._n_events = 0

    def event(self, kind: str, **body: Any) -> bytes:
        numbered = {"type": kind, "sequence_number": self._n_events, **body}
        self._n_events += 1
        return f"event: {kind}\n".encode() + event(numbered)

    def empty(self) -> dict[str, Any]:
        return self._body("in_progress", [], None, None)

    def whole(self, output: RequestOutput) -> dict[str, Any]:
        answer = output.outputs[0]
        items = Items(_untold)
        calls = [CallPiece(index, own.arguments, own.id, own.name) for index, own in enumerate(answer.tool_calls)]
        items.add(answer.text, calls)
        items.end(status_of(output))
        return self.body_of(output, items.made)

    def body_of(self, output: RequestOutput, items: list[dict[str, Any]]) -> dict[str, Any]:
        answer, status = output.outputs[0], status_of(output)
        reason = "content_filter" if answer.finish_reason == "content_filter" else "max_output_tokens"
        why = {"reason": reason} if status == "incomplete" else None
        n_prompt, n_new = len(output.prompt_token_ids), len(answer.token_ids)
        usage = {
            "input_tokens": n_prompt,
            "input_tokens_details": {"cached_tokens": output.timings.cached_tokens},
            "output_tokens": n_new,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": n_prompt + n_new,
        }
        return self._body(status, items, why, usage)

    def _body(
        self, status: str, output: list[dict[str, Any]], why: dict[str, str] | None, usage: dict[str, Any] | None
    ) -> dict[str, Any]:
        fields = self.fields
        form = fields.text.format if fields.text and fields.text.format else TextFormat(type="text")
        choice = fields.tool_choice or ("auto" if fields.tools else "none")
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created_at,
            "status": status,
            "error": None,
            "incomplete_details": why,
            "instructions": fields.instructions,
            "max_output_tokens": fields.max_output_tokens,
            "model": fields.model,
            "output": output,
            "parallel_tool_calls": fields.parallel_tool_calls is not False,
            "previous_response_id": None,
            "store": False,
            "temperature": 1.0 if fields.temperature is None else fields.temperature,
            "text": {"format": form.model_dump(by_alias=True, exclude_none=True)},
            "tool_choice": choice.model_dump() if isinstance(choice, NamedFunctionTool) else choice,
            "tools": [tool.model_dump() for tool in fields.tools or ()],
            "top_p": 1.0 if fields.top_p is None else fields.top_p,
            "truncation": "disabled",
            "usage": usage,
            "metadata": fields.metadata or {},
        }
