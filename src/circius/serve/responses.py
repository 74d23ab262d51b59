"""`POST /v1/responses`: OpenAI's newer form of a chat, without anything kept between two calls."""

import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from circius.engine.outputs import RequestOutput
from circius.engine.request import Request
from circius.engine.worker import Token
from circius.model import Adapter
from circius.serve import chat
from circius.serve.chat import ChatFields, ChatMessage
from circius.serve.errors import ApiError
from circius.serve.fields import JsonSchema, ResponseFormat, Strict
from circius.serve.generation import generation, new_id, salt_of, unless_gone
from circius.serve.sse import event, stream
from circius.serve.state import state_of

router = APIRouter()


class InputText(Strict):
    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class InputMessage(Strict):
    """A message, or an answer of an earlier call as it came."""

    type: Literal["message"] | None = None
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[InputText], Field(min_length=1)]
    id: str | None = None
    status: str | None = None

    def as_chat(self) -> ChatMessage:
        text = self.content if isinstance(self.content, str) else "\n\n".join(part.text for part in self.content)
        return ChatMessage(role=self.role, content=text)


class TextFormat(Strict):
    """Here a schema's fields stand beside its type."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class TextOptions(Strict):
    format: TextFormat | None = None


class ResponseFields(Strict):
    model: str
    input: str | Annotated[list[InputMessage], Field(min_length=1, max_length=chat.MOST_MESSAGES)]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    stream: bool | None = None
    text: TextOptions | None = None
    store: Literal[False] | None = None
    background: Literal[False] | None = None
    truncation: Literal["disabled"] | None = None
    parallel_tool_calls: bool | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None

    def as_chat(self) -> ChatFields:
        """The same question in the older form.

        Raises:
            ApiError: a format that is none.
        """
        messages = [ChatMessage(role="system", content=self.instructions)] if self.instructions else []
        if isinstance(self.input, str):
            messages.append(ChatMessage(role="user", content=self.input))
        else:
            messages += [message.as_chat() for message in self.input]
        return ChatFields(
            model=self.model,
            messages=messages,
            max_completion_tokens=self.max_output_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            response_format=self._format(),
        )

    def _format(self) -> ResponseFormat | None:
        form = self.text.format if self.text else None
        if form is None:
            return None
        if (form.type == "json_schema") != (form.schema_ is not None):
            raise ApiError("text.format needs a schema exactly if its type is json_schema", param="text.format")
        schema = None if form.schema_ is None else JsonSchema(name=form.name, schema=form.schema_)
        return ResponseFormat(type=form.type, json_schema=schema)


@router.post("/v1/responses", tags=["generation"])
async def create_response(fields: ResponseFields, http: HttpRequest) -> Response:
    """Answers a text or a conversation. Nothing is stored: `previous_response_id` is not known here."""
    state = state_of(http)
    llm, adapter = state.llm_named(fields.model), state.adapter_named(fields.model)
    request = await run_in_threadpool(chat.request_of, llm, fields.as_chat())
    salt = salt_of(state.key_of(http), None)
    reply = _Reply(fields)
    if fields.stream:
        return stream(_events(http, request, salt, adapter, reply), ends_with_done=False)

    async def result() -> RequestOutput:
        async with generation(state.worker, [request], salt=salt, adapter=adapter) as own:
            return (await own.results())[0]

    output = await unless_gone(http, result)
    state.note_usage(http, [output])
    return JSONResponse(reply.whole(output))


async def _events(
    http: HttpRequest, request: Request, salt: bytes, adapter: Adapter | None, reply: "_Reply"
) -> AsyncIterator[bytes]:
    """The events that OpenAI's clients know, numbered."""
    state = state_of(http)
    async with generation(state.worker, [request], salt=salt, adapter=adapter) as own:
        begun = {"item_id": reply.message_id, "output_index": 0, "content_index": 0}
        yield reply.event("response.created", response=reply.empty())
        yield reply.event("response.in_progress", response=reply.empty())
        yield reply.event("response.output_item.added", output_index=0, item=reply.message([], "in_progress"))
        yield reply.event("response.content_part.added", **begun, part=reply.part(""))
        async for _, each in own.events():
            if isinstance(each, Token) and each.text:
                yield reply.event("response.output_text.delta", **begun, delta=each.text, logprobs=[])
        output = own.outputs[0]
        state.note_usage(http, [output])
        text = output.outputs[0].text
        body = reply.whole(output)
        yield reply.event("response.output_text.done", **begun, text=text, logprobs=[])
        yield reply.event("response.content_part.done", **begun, part=reply.part(text))
        yield reply.event("response.output_item.done", output_index=0, item=body["output"][0])
        yield reply.event(f"response.{body['status']}", response=body)


class _Reply:
    """The bodies of one response."""

    def __init__(self, fields: ResponseFields) -> None:
        self._fields = fields
        self._id, self.message_id = new_id("resp"), new_id("msg")
        self._created_at = time.time()
        self._n_events = 0

    def event(self, kind: str, **body: Any) -> bytes:
        numbered = {"type": kind, "sequence_number": self._n_events, **body}
        self._n_events += 1
        return f"event: {kind}\n".encode() + event(numbered)

    def part(self, text: str) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def message(self, content: list[dict[str, Any]], status: str) -> dict[str, Any]:
        return {
            "id": self.message_id, "type": "message", "role": "assistant", "status": status, "content": content
        }  # fmt: skip

    def empty(self) -> dict[str, Any]:
        return self._body("in_progress", [], None, None)

    def whole(self, output: RequestOutput) -> dict[str, Any]:
        answer = output.outputs[0]
        is_cut = answer.finish_reason != "stop"
        status = "incomplete" if is_cut else "completed"
        why = {"reason": "max_output_tokens"} if is_cut else None
        n_prompt, n_new = len(output.prompt_token_ids), len(answer.token_ids)
        usage = {
            "input_tokens": n_prompt,
            "input_tokens_details": {"cached_tokens": output.timings.cached_tokens},
            "output_tokens": n_new,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": n_prompt + n_new,
        }
        return self._body(status, [self.message([self.part(answer.text)], status)], why, usage)

    def _body(
        self, status: str, output: list[dict[str, Any]], why: dict[str, str] | None, usage: dict[str, Any] | None
    ) -> dict[str, Any]:
        fields = self._fields
        form = fields.text.format if fields.text and fields.text.format else TextFormat(type="text")
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
            "parallel_tool_calls": bool(fields.parallel_tool_calls),
            "previous_response_id": None,
            "store": False,
            "temperature": 1.0 if fields.temperature is None else fields.temperature,
            "text": {"format": form.model_dump(by_alias=True, exclude_none=True)},
            "tool_choice": "none",
            "tools": [],
            "top_p": 1.0 if fields.top_p is None else fields.top_p,
            "truncation": "disabled",
            "usage": usage,
            "metadata": fields.metadata or {},
        }
