"""`/tokenize` and `/detokenize`, as vLLM has them."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request as HttpRequest

from circius.base.errors import CirciusError
from circius.serve.chat import MOST_MESSAGES, ChatMessage
from circius.serve.errors import ApiError, as_api_error
from circius.serve.fields import Strict, TokenId
from circius.serve.state import state_of
from circius.serve.tool_fields import ToolList, definitions

router = APIRouter()


class TokenizeFields(Strict):
    """A text, or a conversation as its template renders it."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MOST_MESSAGES)] | None = None
    tools: ToolList | None = None
    """Of the conversation."""
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class Tokenized(BaseModel):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeFields(Strict):
    model: str | None = None
    tokens: Annotated[list[TokenId], Field(max_length=1_000_000)]


class Detokenized(BaseModel):
    prompt: str


@router.post("/tokenize", tags=["tokens"])
def tokenize(fields: TokenizeFields, http: HttpRequest) -> Tokenized:
    """The tokens of a text or of a conversation."""
    state = state_of(http)
    llm = state.llm if fields.model is None else state.llm_named(fields.model)
    if (fields.prompt is None) == (fields.messages is None):
        raise ApiError("give either a prompt or messages", param="prompt")
    if fields.tools and fields.messages is None:
        raise ApiError("tools belong to messages: a prompt has no place for them", param="tools")
    if llm.tokenizer is None:
        raise ApiError("this model came without a tokenizer", param="model")
    if fields.prompt is not None:
        adds_bos = llm.tokenizer.adds_bos and fields.add_special_tokens is not False
        tokens = llm.tokenizer.encode(fields.prompt, bos=adds_bos)
    else:
        messages = [message.as_mapping(index) for index, message in enumerate(fields.messages or [])]
        if llm.chat_template is None:
            raise ApiError("this model has no chat template", param="messages")
        try:
            tokens = llm.chat_template.encode(messages, tools=definitions(fields.tools))
        except CirciusError as error:
            raise as_api_error(error) from error
    names = [llm.tokenizer.piece(token) for token in tokens] if fields.return_token_strs else None
    return Tokenized(count=len(tokens), max_model_len=llm.context, tokens=tokens, token_strs=names)


@router.post("/detokenize", tags=["tokens"])
def detokenize(fields: DetokenizeFields, http: HttpRequest) -> Detokenized:
    """The text of some tokens."""
    state = state_of(http)
    llm = state.llm if fields.model is None else state.llm_named(fields.model)
    if llm.tokenizer is None:
        raise ApiError("this model came without a tokenizer", param="model")
    if too_large := [token for token in fields.tokens if token >= llm.config.vocab_size]:
        raise ApiError(f"the model has tokens 0 to {llm.config.vocab_size - 1}, got {too_large[0]}", param="tokens")
    return Detokenized(prompt=llm.tokenizer.decode(fields.tokens, skip_special=False))
