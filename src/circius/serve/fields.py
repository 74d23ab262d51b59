"""The fields that requests share: how tokens are chosen, when an answer ends, what is streamed.

Names, types and ranges are those of OpenAI and vLLM. A field that is not here is refused; a field that is here is
honoured, or refused with what it would take.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from circius.base.errors import ParamsError
from circius.engine.params import SamplingParams
from circius.engine.structured import StructuredOutputs
from circius.serve.errors import ApiError, named_param

TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]
MOST_ANSWERS = 128


class Strict(BaseModel):
    """Unknown fields are refused, and numbers are not made of texts."""

    model_config = ConfigDict(extra="forbid", strict=True)


class StreamOptions(Strict):
    include_usage: bool | None = None
    continuous_usage_stats: Literal[False] | None = None


class StructuredFields(Strict):
    """vLLM's: one of them."""

    json_: dict[str, Any] | str | bool | None = Field(default=None, alias="json")
    regex: str | None = None
    choice: Annotated[list[str], Field(min_length=1, max_length=4096)] | None = None
    grammar: str | None = None
    json_object: bool | None = None


class JsonSchema(Strict):
    """OpenAI's: a schema with a name for the client's own books. The schema holds whether `strict` or not."""

    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Strict):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class SamplingFields(Strict):
    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    stop: str | Annotated[list[str], Field(max_length=64)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=1024)] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    min_tokens: int | None = None
    skip_special_tokens: bool | None = None
    prompt_logprobs: int | None = None
    structured_outputs: StructuredFields | None = None
    response_format: ResponseFormat | None = None
    cache_salt: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    user: str | None = None
    """Whom the request is for: a name for the client's own books, which changes nothing."""

    def check_stream(self) -> None:
        """Refuses what only a stream can have."""
        if self.stream_options is not None and not self.stream:
            raise ApiError("stream_options are for streams: set stream to true", param="stream_options")

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def sampling_params(self, *, max_tokens: int | None, logprobs: int | None) -> SamplingParams:
        """The checked parameters.

        Raises:
            ApiError: a value out of its range, with the field's name.
        """
        given: dict[str, Any] = {name: value for name in _SAMPLING_NAMES if (value := getattr(self, name)) is not None}
        if self.logit_bias is not None:
            given["logit_bias"] = _by_token(self.logit_bias)
        try:
            form = self._form()
            return SamplingParams(**given, max_tokens=max_tokens, logprobs=logprobs, structured_outputs=form)
        except ParamsError as error:
            raise ApiError(str(error), param=named_param(str(error))) from error

    def _form(self) -> StructuredOutputs | None:
        """The form that the answer must have, by whichever field it is asked for.

        Raises:
            ApiError, ParamsError: fields that contradict each other, or a form that is none.
        """
        asked = self.response_format
        if asked is not None and (asked.type == "json_schema") != (asked.json_schema is not None):
            raise ApiError(
                "response_format needs json_schema exactly if its type is json_schema", param="response_format"
            )
        if asked is None or asked.type == "text":
            own = self.structured_outputs
            return None if own is None else StructuredOutputs(
                json=own.json_, regex=own.regex, choice=own.choice, grammar=own.grammar, json_object=own.json_object
            )  # fmt: skip
        if self.structured_outputs is not None:
            raise ApiError("give either response_format or structured_outputs", param="structured_outputs")
        if asked.json_schema is not None:
            return StructuredOutputs(json=asked.json_schema.schema_)
        return StructuredOutputs(json_object=True)


_SAMPLING_NAMES = (
    *("n", "temperature", "top_p", "top_k", "min_p", "seed", "presence_penalty", "frequency_penalty"),
    *("repetition_penalty", "stop", "stop_token_ids", "include_stop_str_in_output", "ignore_eos", "min_tokens"),
    *("skip_special_tokens", "prompt_logprobs"),
)


def _by_token(bias: dict[str, float]) -> dict[int, float]:
    try:
        return {int(token): value for token, value in bias.items()}
    except ValueError:
        raise ApiError("logit_bias must map token ids to numbers", param="logit_bias") from None


class Usage(BaseModel):
    """Tokens of a request, over all its answers."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int]

    @classmethod
    def of(cls, prompt_tokens: int, completion_tokens: int, cached_tokens: int) -> "Usage":
        return cls(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            total_tokens=prompt_tokens + completion_tokens,
            prompt_tokens_details={"cached_tokens": cached_tokens},
        )


FinishReason = Literal["stop", "length", "abort", "tool_calls"]
