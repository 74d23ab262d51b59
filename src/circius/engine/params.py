"""What a caller asks of the sampler: vLLM's names, checked when they are given. No torch here."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from types import MappingProxyType
from typing import Self

from circius.base.errors import ParamsError
from circius.engine.structured import StructuredOutputs

GREEDY_BELOW = 1e-5
MAX_LOGPROBS = 100


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How the tokens of one request are chosen, and when it ends.

    Logit bias, penalties and `min_tokens` are applied to the logits first, then the temperature, then `min_p`,
    `top_k` and `top_p`, in that order. A temperature below 1e-5 means greedy: the most likely token, always.

    Attributes:
        n: how many answers to the one prompt; more than one needs a temperature.
        temperature: 0 is greedy, 1 the model's own distribution; no upper limit.
        top_p: keep the fewest most likely tokens that together hold this probability, in (0, 1], and those that tie
            with the last of them; 1 keeps all.
        top_k: keep the k most likely tokens and those that tie with the last of them; 0 or -1 keeps all.
        min_p: keep tokens at least this fraction as likely as the most likely one, in [0, 1]; 0 keeps all.
        repetition_penalty: above 1 makes tokens of the prompt and of the answer less likely, below 1 more; > 0.
        presence_penalty: taken off the logit of a token that the answer has already, in [-2, 2].
        frequency_penalty: taken off once for each time that the answer has the token, in [-2, 2].
        logit_bias: token id to a number added to its logit; -inf forbids the token.
        seed: the same seed gives the same answer, alone or in any batch; None draws a fresh one.
        stop: one text or several that end the answer where the first of them is complete.
        stop_token_ids: tokens that end the answer, next to the model's own end tokens.
        max_tokens: the most tokens of one answer; None fills the context.
        min_tokens: no end token is drawn, and no stop text looked for, before that many tokens.
        ignore_eos: go on past the model's own end tokens (`stop_token_ids` still end the answer).
        logprobs: give the log-probability of each token, and of the that many most likely ones at its place.
        logprob_token_ids: the log-probabilities of these tokens, at each place, instead of the most likely ones; needs
            `logprobs`, whose number then says nothing.
        prompt_logprobs: the same for the tokens of the prompt.
        include_stop_str_in_output: leave the stop text, or the text of the stop token, at the end of the text.
        skip_special_tokens: leave control tokens out of the text.
        structured_outputs: the form that the answer must have; it can still be cut off by `max_tokens`.

    Raises:
        ParamsError: a value of the wrong type or outside its range, or two values that contradict each other.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] | None = None
    seed: int | None = None
    stop: str | Iterable[str] | None = None
    stop_token_ids: Iterable[int] | None = None
    max_tokens: int | None = 16
    min_tokens: int = 0
    ignore_eos: bool = False
    logprobs: int | None = None
    logprob_token_ids: Iterable[int] | None = None
    prompt_logprobs: int | None = None
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    structured_outputs: StructuredOutputs | None = None

    def __post_init__(self) -> None:
        self._check_numbers()
        for name in ("ignore_eos", "include_stop_str_in_output", "skip_special_tokens"):
            if not isinstance(getattr(self, name), bool):
                raise ParamsError(f"{name} must be True or False, got {getattr(self, name)!r}")
        object.__setattr__(self, "logit_bias", _checked_bias(self.logit_bias))
        object.__setattr__(self, "stop", _checked_stops(self.stop))
        object.__setattr__(self, "stop_token_ids", _checked_ids("stop_token_ids", self.stop_token_ids))
        object.__setattr__(self, "logprob_token_ids", _checked_ids("logprob_token_ids", self.logprob_token_ids))
        if self.named_ids and self.logprobs is None:
            raise ParamsError("logprob_token_ids name tokens whose log-probabilities to give: set logprobs, to 0 say")
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ParamsError(f"min_tokens ({self.min_tokens}) must not be above max_tokens ({self.max_tokens})")
        if self.structured_outputs is not None:
            if not isinstance(self.structured_outputs, StructuredOutputs):
                raise ParamsError(f"structured_outputs must be StructuredOutputs, got {self.structured_outputs!r:.80}")
            if self.ignore_eos or self.min_tokens:
                raise ParamsError("structured_outputs end where their form ends: leave out ignore_eos and min_tokens")
        if self.n > 1 and self.is_greedy:
            raise ParamsError(
                f"n must be 1 when temperature is 0, got {self.n}: greedy answers would all be the same; "
                "give a temperature above 0"
            )

    @classmethod
    def greedy(cls, **given: object) -> Self:
        """Parameters with temperature 0; everything else as given.

        >>> SamplingParams.greedy(max_tokens=4).is_greedy
        True
        """
        return cls(**{"temperature": 0.0, **given})  # type: ignore[arg-type]

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature < GREEDY_BELOW

    @property
    def has_penalties(self) -> bool:
        """Whether any of the three penalties does something."""
        return self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop texts, always as a tuple."""
        assert isinstance(self.stop, tuple)
        return self.stop

    @property
    def stop_ids(self) -> frozenset[int]:
        """The stop tokens that the caller named."""
        return frozenset(self.stop_token_ids or ())

    @property
    def named_ids(self) -> tuple[int, ...]:
        """The tokens whose log-probabilities the caller wants, each once."""
        return tuple(dict.fromkeys(self.logprob_token_ids or ()))

    def check_vocabulary(self, vocab_size: int) -> None:
        """Refuses token ids that a model with `vocab_size` tokens does not have.

        Raises:
            ParamsError: an id in `logit_bias`, `stop_token_ids` or `logprob_token_ids` is `vocab_size` or more.
        """
        for name, ids in (
            ("logit_bias", self.logit_bias or ()),
            ("stop_token_ids", self.stop_ids),
            ("logprob_token_ids", self.named_ids),
        ):
            for token in ids:
                if token >= vocab_size:
                    raise ParamsError(f"{name}: the model has tokens 0 to {vocab_size - 1}, got {token}")

    def _check_numbers(self) -> None:
        _check_real(self, "temperature", low=0.0)
        _check_real(self, "top_p", low=0.0, high=1.0, low_open=True)
        _check_real(self, "min_p", low=0.0, high=1.0)
        _check_real(self, "repetition_penalty", low=0.0, low_open=True)
        _check_real(self, "presence_penalty", low=-2.0, high=2.0)
        _check_real(self, "frequency_penalty", low=-2.0, high=2.0)
        _check_int(self, "n", low=1)
        _check_int(self, "top_k", low=-1)
        _check_int(self, "min_tokens", low=0)
        _check_int(self, "max_tokens", low=1, optional=True)
        _check_int(self, "seed", low=None, optional=True)
        _check_int(self, "logprobs", low=0, high=MAX_LOGPROBS, optional=True)
        _check_int(self, "prompt_logprobs", low=0, high=MAX_LOGPROBS, optional=True)


def _check_real(
    params: SamplingParams, name: str, *, low: float, high: float = math.inf, low_open: bool = False
) -> None:
    value = getattr(params, name)
    bound = f"above {low:g}" if low_open else f"{low:g} or more"
    allowed = bound if high == math.inf else f"{bound} and at most {high:g}"
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    # Written so that NaN, which compares false with everything, is refused too.
    if not (is_number and math.isfinite(value) and low <= value <= high and not (low_open and value == low)):
        raise ParamsError(f"{name} must be a number, {allowed}, got {value!r}")
    object.__setattr__(params, name, float(value))


def _check_int(
    params: SamplingParams, name: str, *, low: int | None, high: int | None = None, optional: bool = False
) -> None:
    value = getattr(params, name)
    if value is None and optional:
        return
    is_int = isinstance(value, Integral) and not isinstance(value, bool)
    if not (is_int and (low is None or value >= low) and (high is None or value <= high)):
        bounds = [f"{low} or more" if low is not None else "", f"at most {high}" if high is not None else ""]
        allowed = " and ".join(part for part in bounds if part)
        either = ", or None" if optional else ""
        raise ParamsError(f"{name} must be a whole number{', ' * bool(allowed)}{allowed}{either}, got {value!r}")
    object.__setattr__(params, name, int(value))


def _checked_bias(bias: object) -> Mapping[int, float] | None:
    if bias is None:
        return None
    if not isinstance(bias, Mapping):
        raise ParamsError(f"logit_bias must map token ids to numbers, got {bias!r}")
    for token, value in bias.items():
        if not isinstance(token, Integral) or isinstance(token, bool) or token < 0:
            raise ParamsError(f"logit_bias: a token id must be a whole number, 0 or more, got {token!r}")
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not (is_number and (math.isfinite(value) or value == -math.inf)):
            raise ParamsError(f"logit_bias[{token}] must be a finite number or -inf, got {value!r}")
    return MappingProxyType({int(token): float(value) for token, value in bias.items()})


def _checked_stops(stop: object) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else stop
    if stops is None:
        return ()
    if not isinstance(stops, Iterable):
        raise ParamsError(f"stop must be a text or a list of texts, got {stop!r}")
    checked = tuple(stops)
    for text in checked:
        if not isinstance(text, str) or not text:
            raise ParamsError(f"stop: each stop text must be a text that is not empty, got {text!r}")
    return checked


def _checked_ids(name: str, ids: object) -> tuple[int, ...]:
    if ids is None:
        return ()
    if not isinstance(ids, Iterable) or isinstance(ids, str | bytes):
        raise ParamsError(f"{name} must be a list of token ids, got {ids!r}")
    checked = tuple(ids)
    for token in checked:
        if not isinstance(token, Integral) or isinstance(token, bool) or token < 0:
            raise ParamsError(f"{name}: a token id must be a whole number, 0 or more, got {token!r}")
    return tuple(int(token) for token in checked)
