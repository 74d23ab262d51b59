"""The fields that requests share: how tokens are chosen, when an answer ends, what is streamed.

Names, types and ranges are those of OpenAI and vLLM. A field that is not here is refused; a field that is here is
honoured, or refused with what it would take.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from circius.base.errors import ParamsError
from circius.engine.params import SamplingParams
from circius.serve.errors import ApiError

TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]
MOST_ANSWERS = 128


class Strict(BaseModel):
    """Unknown fields are refused, and numbers are not made of texts."""

    model_config = ConfigDict(extra="forbid", strict=True)


class StreamOptions(Strict):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


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
            return SamplingParams(**given, max_tokens=max_tokens, logprobs=logprobs)
        except ParamsError as error:
            raise ApiError(str(error), param=_param_of(str(error))) from error


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


def _param_of(message: str) -> str | None:
    first = message.split(maxsplit=1)[0].split("[")[0].rstrip(":")
    return first if first in SamplingParams.__dataclass_fields__ else None


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
