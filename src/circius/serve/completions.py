"""`POST /v1/completions`: the text after a prompt."""

import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from circius.base.errors import CirciusError
from circius.engine.llm import LLM
from circius.engine.outputs import Logprobs, RequestOutput
from circius.engine.request import Request
from circius.engine.worker import AnswerEnd, Token
from circius.model import Adapter
from circius.serve.errors import ApiError, as_api_error
from circius.serve.fields import SamplingFields, TokenId, Usage
from circius.serve.generation import Generation, generation, new_id, salt_of, unless_gone
from circius.serve.sse import event, stream
from circius.serve.state import n_tokens_of, state_of
from circius.text import StreamDecoder

router = APIRouter()
MOST_PROMPTS = 512
MOST_LOGPROBS = 5

Ids = Annotated[list[TokenId], Field(min_length=1)]


class CompletionFields(SamplingFields):
    """The body of a request. `best_of` and `suffix` are known, and refused unless they change nothing."""

    prompt: str | Ids | Annotated[list[str] | list[Ids], Field(min_length=1, max_length=MOST_PROMPTS)]
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    echo: bool | None = None
    best_of: int | None = None
    suffix: str | None = None
    add_special_tokens: bool | None = None

    def prompts(self) -> list[str | list[int]]:
        given: Any = self.prompt
        if isinstance(given, str) or isinstance(given[0], int):
            return [given]
        return list(given)

    def check(self) -> None:
        """Refuses what cannot be honoured.

        Raises:
            ApiError: with the field's name.
        """
        self.check_stream()
        if self.best_of not in (None, 1, self.n):
            raise ApiError(f"best_of must be left out, or be n ({self.n or 1}), got {self.best_of}", param="best_of")
        if self.suffix:
            raise ApiError("suffix: this model cannot fill in before a text that follows", param="suffix")
        if self.echo and self.stream:
            raise ApiError("echo and stream do not go together: the prompt is known already", param="echo")
        if len(self.prompts()) * (self.n or 1) > MOST_PROMPTS:
            raise ApiError(f"prompts times n may be {MOST_PROMPTS} in one request", param="n")
        if self.max_tokens == 0 and not self.echo:
            raise ApiError("max_tokens must be 1 or more, or 0 with echo to have the prompt scored", param="max_tokens")


@router.post("/v1/completions", tags=["generation"])
async def completions(fields: CompletionFields, http: HttpRequest) -> Response:
    """Continues a prompt, or several; with `echo` and `logprobs` the prompt is scored as well."""
    fields.check()
    state = state_of(http)
    llm, adapter = state.llm_named(fields.model), state.adapter_named(fields.model)
    # Elsewhere than on the event loop: long texts take their time to be encoded.
    requests = await run_in_threadpool(lambda: [request_of(llm, fields, prompt) for prompt in fields.prompts()])
    await state.moderation.check_prompts(http, requests)
    salt, screen = salt_of(state.key_of(http), fields.cache_salt), state.moderation.screen(http)
    reply = Reply(llm, fields, new_id("cmpl"))
    if fields.stream:
        return stream(_events(http, requests, salt, adapter, reply))

    async def results() -> list[RequestOutput]:
        async with generation(state.worker, requests, salt=salt, adapter=adapter, screen=screen) as own:
            return await own.results()

    outputs = await unless_gone(http, results)
    state.note_usage(http, outputs)
    return JSONResponse(reply.whole(outputs))


async def _events(
    http: HttpRequest, requests: Sequence[Request], salt: bytes, adapter: Adapter | None, reply: "Reply"
) -> AsyncIterator[bytes]:
    state = state_of(http)
    screen = state.moderation.screen(http)
    async with generation(state.worker, requests, salt=salt, adapter=adapter, screen=screen) as own:
        async for place, each in own.events():
            if isinstance(each, Token | AnswerEnd):
                yield event(reply.part(place, each, own))
        state.note_usage(http, list(own.outputs.values()))
        if reply.fields.wants_usage:
            yield event(reply.usage_part(list(own.outputs.values())))


def request_of(llm: LLM, fields: CompletionFields, prompt: str | list[int]) -> Request:
    wants_prompt = bool(fields.echo) and fields.logprobs is not None
    # A prompt that is only scored still needs one token to end with, which is left out of the answer.
    max_tokens = 1 if fields.max_tokens == 0 else 16 if fields.max_tokens is None else fields.max_tokens
    own = fields.model_copy(update={"prompt_logprobs": fields.logprobs}) if wants_prompt else fields
    try:
        return llm.asker.completion(
            prompt,
            own.sampling_params(max_tokens=max_tokens, logprobs=fields.logprobs),
            adds_bos=fields.add_special_tokens is not False,
        )
    except CirciusError as error:
        raise as_api_error(error, param="prompt") from error


class Reply:
    """The bodies of an answer, whole or in parts."""

    def __init__(self, llm: LLM, fields: CompletionFields, own_id: str) -> None:
        self._llm, self.fields = llm, fields
        self._head = {"id": own_id, "object": "text_completion", "created": int(time.time()), "model": fields.model}
        self._n = fields.n or 1
        self._lengths: dict[int, int] = {}

    def whole(self, outputs: Sequence[RequestOutput]) -> dict[str, Any]:
        choices = [choice for place, output in enumerate(outputs) for choice in self._choices(place, output)]
        return {**self._head, "choices": choices, "usage": self._usage(outputs)}

    def part(self, place: int, each: Token | AnswerEnd, own: Generation) -> dict[str, Any]:
        index = place * self._n + each.answer
        if isinstance(each, AnswerEnd):
            choice = {
                "index": index, "text": "", "logprobs": None,
                "finish_reason": each.finish_reason, "stop_reason": each.stop_reason,
            }  # fmt: skip
        else:
            logprobs = None
            if self.fields.logprobs is not None and each.logprobs is not None:
                offset = self._lengths.get(index, 0)
                logprobs = _legacy([each.token], [each.logprobs], self._llm, [offset])
            self._lengths[index] = self._lengths.get(index, 0) + len(each.text)
            choice = {"index": index, "text": each.text, "logprobs": logprobs, "finish_reason": None}
        part = {**self._head, "choices": [choice]}
        return {**part, "usage": None} if self.fields.wants_usage else part

    def usage_part(self, outputs: Sequence[RequestOutput]) -> dict[str, Any]:
        return {**self._head, "choices": [], "usage": self._usage(outputs)}

    def _choices(self, place: int, output: RequestOutput) -> list[dict[str, Any]]:
        choices = []
        for answer in output.outputs:
            is_empty = self.fields.max_tokens == 0
            text = "" if is_empty else answer.text
            tokens: list[int] = [] if is_empty else list(answer.token_ids)
            entries: list[Logprobs | None] = [] if is_empty else list(answer.logprobs or [])
            if self.fields.echo:
                text = self._prompt_text(output) + text
                tokens = [*output.prompt_token_ids, *tokens]
                entries = [*(output.prompt_logprobs or []), *entries]
            choices.append({
                "index": place * self._n + answer.index,
                "text": text,
                "logprobs": self._logprobs(output, tokens, entries),
                "finish_reason": "length" if is_empty else answer.finish_reason,
                "stop_reason": None if is_empty else answer.stop_reason,
            })  # fmt: skip
            if self.fields.prompt_logprobs is not None:
                choices[-1]["prompt_logprobs"] = _prompt_entries(output.prompt_logprobs or [])
        return choices

    def _logprobs(
        self, output: RequestOutput, tokens: Sequence[int], entries: Sequence[Logprobs | None]
    ) -> dict[str, Any] | None:
        if self.fields.logprobs is None:
            return None
        tokenizer, offsets, length = self._llm.tokenizer, list[int](), 0
        before = () if self.fields.echo else output.prompt_token_ids
        decoder = None if tokenizer is None else StreamDecoder(tokenizer, before)
        for token in tokens:
            offsets.append(length)
            length += len(decoder.push([token])) if decoder else 0
        return _legacy(tokens, entries, self._llm, offsets)

    def _usage(self, outputs: Sequence[RequestOutput]) -> dict[str, Any]:
        n_prompt, n_new = n_tokens_of(outputs)
        n_found = sum(output.timings.cached_tokens for output in outputs)
        return Usage.of(n_prompt, 0 if self.fields.max_tokens == 0 else n_new, n_found).model_dump()

    def _prompt_text(self, output: RequestOutput) -> str:
        if output.prompt is not None:
            return output.prompt
        tokenizer = self._llm.tokenizer
        return tokenizer.decode(output.prompt_token_ids, skip_special=True) if tokenizer else ""


def _legacy(
    tokens: Sequence[int], entries: Sequence[Logprobs | None], llm: LLM, offsets: Sequence[int]
) -> dict[str, Any]:
    """OpenAI's first form of log-probabilities: lists beside each other."""
    texts = [_name(token, entry, llm) for token, entry in zip(tokens, entries, strict=True)]
    return {
        "tokens": texts,
        "token_logprobs": [None if e is None else e[token].logprob for token, e in zip(tokens, entries, strict=True)],
        "top_logprobs": [
            None if entry is None else {value.decoded_token or f"token_id:{token}": value.logprob
                                        for token, value in entry.items()}
            for entry in entries
        ],
        "text_offset": list(offsets),
    }  # fmt: skip


def _name(token: int, entry: Logprobs | None, llm: LLM) -> str:
    if entry is not None and entry[token].decoded_token is not None:
        return entry[token].decoded_token or ""
    if llm.tokenizer is None:
        return f"token_id:{token}"
    return llm.tokenizer.decode([token], skip_special=False)


def _prompt_entries(entries: Sequence[Logprobs | None]) -> list[dict[str, Any] | None]:
    return [
        None if entry is None else {
            str(token): {"logprob": e.logprob, "rank": e.rank, "decoded_token": e.decoded_token}
            for token, e in entry.items()
        }
        for entry in entries
    ]  # fmt: skip
