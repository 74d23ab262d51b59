"""`POST /v1/chat/completions`: the next message of a conversation."""

import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from circius.base.errors import CirciusError
from circius.engine.llm import LLM
from circius.engine.outputs import CompletionOutput, Logprobs, RequestOutput
from circius.engine.request import Request
from circius.engine.worker import AnswerEnd, Token
from circius.model import Adapter
from circius.serve.errors import ApiError, as_api_error
from circius.serve.fields import SamplingFields, Strict, Usage
from circius.serve.generation import generation, new_id, salt_of, unless_gone
from circius.serve.sse import event, stream
from circius.serve.state import state_of
from circius.serve.tool_fields import (
    MOST_CALLS,
    CallField,
    NamedTool,
    Old,
    ToolChoiceField,
    ToolList,
    call_deltas,
    definitions,
)

router = APIRouter()
MOST_TOP_LOGPROBS = 20
MOST_MESSAGES = 4096


class TextPart(Strict):
    type: Literal["text"]
    text: str


class ChatMessage(Strict):
    """Who says what. A message may be null where a client leaves a field empty."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: Annotated[list[CallField], Field(max_length=MOST_CALLS)] | None = None
    tool_call_id: str | None = None
    refusal: None = None
    audio: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    """Answers of OpenAI's own come with these three, so they come back with them."""
    parsed: Any = None
    """OpenAI's client sends its own reading of the content back with it; the content is what counts."""
    function_call: Old = None

    def as_mapping(self, index: int) -> dict[str, Any]:
        """The message as a template takes it."""
        if self.name and self.role != "tool":
            raise ApiError(
                f"messages[{index}]: this model's template has no place for the name of a speaker",
                param=f"messages[{index}].name",
            )
        content: Any = self.content
        if content is None and not self.tool_calls:
            raise ApiError(f"messages[{index}]: content is missing", param=f"messages[{index}].content")
        if isinstance(content, list):
            content = [part.model_dump() for part in content]
        # OpenAI's newer name for the same role.
        mapping = {"role": "system" if self.role == "developer" else self.role, "content": content}
        calls = [call.as_mapping() for call in self.tool_calls or []]
        given = {"tool_calls": calls or None, "tool_call_id": self.tool_call_id, "name": self.name or None}
        return mapping | {key: value for key, value in given.items() if value is not None}


class ChatFields(SamplingFields):
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MOST_MESSAGES)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_TOP_LOGPROBS)] | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None
    tools: ToolList | None = None
    tool_choice: ToolChoiceField | None = None
    parallel_tool_calls: bool | None = None
    safe_prompt: bool | None = None
    """Mistral's: the guard prompt before the conversation."""
    functions: Old = None
    function_call: Old = None
    store: Literal[False] | None = None
    metadata: dict[str, str] | None = None
    """For the client's own books, like `user`."""

    def check(self) -> None:
        """Refuses fields that contradict each other.

        Raises:
            ApiError: with the field's name.
        """
        self.check_stream()
        if self.top_logprobs is not None and not self.logprobs:
            raise ApiError("top_logprobs needs logprobs to be true", param="top_logprobs")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ApiError(
                f"max_tokens ({self.max_tokens}) and max_completion_tokens ({self.max_completion_tokens}) are two "
                "names for one number: give one of them",
                param="max_tokens",
            )
        if self.add_generation_prompt is False and not self.continue_final_message:
            raise ApiError(
                "add_generation_prompt: false leaves nothing to answer; to go on with the last message, give "
                "continue_final_message: true",
                param="add_generation_prompt",
            )
        if self.add_generation_prompt and self.continue_final_message:
            raise ApiError(
                "continue_final_message and add_generation_prompt contradict each other", param="add_generation_prompt"
            )

    @property
    def n_top(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None


@router.post("/v1/chat/completions", tags=["generation"])
async def chat_completions(fields: ChatFields, http: HttpRequest) -> Response:
    """Answers a conversation."""
    fields.check()
    state = state_of(http)
    llm, adapter = state.llm_named(fields.model), state.adapter_named(fields.model)
    request = await run_in_threadpool(request_of, llm, fields)  # long texts take their time to be encoded
    await state.moderation.check_prompts(http, [request])
    salt, screen = salt_of(state.key_of(http), fields.cache_salt), state.moderation.screen(http)
    reply = Reply(llm, fields, new_id("chatcmpl"))
    if fields.stream:
        return stream(_events(http, request, salt, adapter, reply))

    async def result() -> RequestOutput:
        async with generation(state.worker, [request], salt=salt, adapter=adapter, screen=screen) as own:
            return (await own.results())[0]

    output = await unless_gone(http, result)
    state.note_usage(http, [output])
    return JSONResponse(reply.whole(output))


async def _events(
    http: HttpRequest, request: Request, salt: bytes, adapter: Adapter | None, reply: "Reply"
) -> AsyncIterator[bytes]:
    state = state_of(http)
    screen = state.moderation.screen(http)
    async with generation(state.worker, [request], salt=salt, adapter=adapter, screen=screen) as own:
        for index in range(request.params.n):
            yield event(reply.chunk(index, {"role": "assistant", "content": None if reply.fields.tools else ""}))
        async for _, each in own.events():
            if isinstance(each, Token) and (each.text or each.calls or reply.fields.logprobs):
                yield event(reply.token_chunk(each))
            elif isinstance(each, AnswerEnd):
                yield event(reply.chunk(each.answer, {}, each.finish_reason, stop_reason=each.stop_reason))
        state.note_usage(http, [own.outputs[0]])
        if reply.fields.wants_usage:
            yield event(reply.usage_chunk(own.outputs[0]))


def request_of(llm: LLM, fields: ChatFields) -> Request:
    messages = [message.as_mapping(index) for index, message in enumerate(fields.messages)]
    params = fields.sampling_params(
        max_tokens=fields.max_completion_tokens or fields.max_tokens,  # as much as fits, if neither is given
        logprobs=fields.n_top,
    )
    tools, choice = definitions(fields.tools), fields.tool_choice
    try:
        return llm.asker.chat(
            messages, params, continue_final=bool(fields.continue_final_message), tools=tools,
            guard=bool(fields.safe_prompt),
            tool_choice=choice.model_dump() if isinstance(choice, NamedTool) else choice,
            parallel_tool_calls=fields.parallel_tool_calls is not False,
        )  # fmt: skip
    except CirciusError as error:
        raise as_api_error(error) from error


class Reply:
    """The bodies of an answer, whole or in chunks."""

    def __init__(self, llm: LLM, fields: ChatFields, own_id: str) -> None:
        self._llm, self.fields = llm, fields
        self._head = {"id": own_id, "created": int(time.time()), "model": fields.model}

    def whole(self, output: RequestOutput) -> dict[str, Any]:
        body = {
            **self._head,
            "object": "chat.completion",
            "choices": [self._choice(answer) for answer in output.outputs],
            "usage": _usage(output).model_dump(),
        }
        if self.fields.prompt_logprobs is not None:
            body["prompt_logprobs"] = [
                None if e is None else {str(t): {"logprob": v.logprob, "rank": v.rank} for t, v in e.items()}
                for e in output.prompt_logprobs or []
            ]
        return body

    def chunk(
        self,
        index: int,
        delta: dict[str, Any],
        finish_reason: str | None = None,
        *,
        logprobs: dict[str, Any] | None = None,
        stop_reason: int | str | None = None,
    ) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        if stop_reason is not None:
            choice["stop_reason"] = stop_reason
        body = {**self._head, "object": "chat.completion.chunk", "choices": [choice]}
        return {**body, "usage": None} if self.fields.wants_usage else body

    def token_chunk(self, each: Token) -> dict[str, Any]:
        logprobs = None
        if self.fields.logprobs and each.logprobs is not None:
            logprobs = {"content": [self._entry(each.token, each.logprobs)]}
        delta: dict[str, Any] = {"content": each.text} if each.text or not self.fields.tools else {}
        if each.calls:
            delta["tool_calls"] = call_deltas(each.calls)
        return self.chunk(each.answer, delta, logprobs=logprobs)

    def usage_chunk(self, output: RequestOutput) -> dict[str, Any]:
        return {
            **self._head, "object": "chat.completion.chunk", "choices": [], "usage": _usage(output).model_dump()
        }  # fmt: skip

    def _choice(self, answer: CompletionOutput) -> dict[str, Any]:
        logprobs = None
        if self.fields.logprobs:
            pairs = zip(answer.token_ids, answer.logprobs or [], strict=True)
            logprobs = {"content": [self._entry(token, entry) for token, entry in pairs]}
        content = answer.text or None if self.fields.tools else answer.text
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if answer.tool_calls:
            message["tool_calls"] = [call.mapping for call in answer.tool_calls]
        return {
            "index": answer.index,
            "message": message,
            "logprobs": logprobs,
            "finish_reason": answer.finish_reason,
            "stop_reason": answer.stop_reason,
        }

    def _entry(self, token: int, entry: Logprobs) -> dict[str, Any]:
        top = sorted(entry.items(), key=lambda item: item[1].rank)[: self.fields.n_top or 0]
        return {
            **self._named(token, entry),
            "top_logprobs": [self._named(other, entry) for other, _ in top],
        }

    def _named(self, token: int, entry: Logprobs) -> dict[str, Any]:
        tokenizer = self._llm.tokenizer
        text = entry[token].decoded_token or ""
        is_text = tokenizer is not None and not tokenizer.is_special(token)
        content = tokenizer.token_bytes(token) if tokenizer is not None and is_text else text.encode()
        return {"token": text, "logprob": entry[token].logprob, "bytes": list(content)}


def _usage(output: RequestOutput) -> Usage:
    return Usage.of(
        len(output.prompt_token_ids),
        sum(len(answer.token_ids) for answer in output.outputs),
        output.timings.cached_tokens,
    )
