"""A checked request: token ids, parameters, and where its answers end. No torch here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral

from circius.base.errors import ContextOverflowError, ParamsError, PromptError
from circius.engine.params import SamplingParams
from circius.engine.structured import Constraint, StructuredOutputs
from circius.text.tool_reader import CallReader


@dataclass(frozen=True, kw_only=True)
class Request:
    """A prompt that fits, with the parameters that go with it.

    `max_tokens` is that of the parameters, or what is left of the context. `eos_ids` are the tokenizer's end tokens,
    `end_ids` all tokens that end an answer: those, the template's and the caller's. An answer that `continues_text`
    keeps the space between the prompt's last word and its own first; a chat's answer is a text of its own.
    """

    prompt_ids: Sequence[int]
    params: SamplingParams
    max_tokens: int
    eos_ids: frozenset[int]
    end_ids: frozenset[int]
    prompt: str | None = None
    continues_text: bool = True
    constrain: Callable[[], Constraint] | None = None
    """Makes the constraint of an answer, where a form was asked for."""
    read_calls: Callable[[], CallReader] | None = None
    """Makes what reads the calls of tools out of an answer, where tools were given."""

    @property
    def n_cache_tokens(self) -> int:
        """The tokens that an answer's cache row ever holds: the last token of the answer is never forwarded."""
        return len(self.prompt_ids) + self.max_tokens - 1


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the model and its tokenizer allow a request, and which of their tokens end an answer.

    `turn_ids` are end tokens of the chat template that are not the tokenizer's own.
    """

    context: int
    vocab_size: int
    has_tokenizer: bool = True
    eos_ids: frozenset[int] = frozenset()
    turn_ids: frozenset[int] = frozenset()
    forms: Callable[[StructuredOutputs], Callable[[], Constraint]] | None = None
    """What checks the form that an answer is to have; None where there can be none."""


def make_request(
    prompt_ids: Sequence[int],
    params: SamplingParams,
    limits: Limits,
    *,
    prompt: str | None = None,
    continues_text: bool = True,
) -> Request:
    """The request, checked before anything is computed.

    Raises:
        PromptError: no tokens, or an id that the model does not have.
        ContextOverflowError: the prompt with `max_tokens` more does not fit into the context.
        ParamsError: parameters that this model cannot honour.
    """
    ids = _checked_prompt(prompt_ids, limits.vocab_size)
    params.check_vocabulary(limits.vocab_size)
    if params.stops and not limits.has_tokenizer:
        raise ParamsError(
            f"stop texts {list(params.stops)} need a tokenizer, and this model came without one: "
            "give stop_token_ids, or a tokenizer"
        )
    constrain = None
    if params.structured_outputs is not None:
        if limits.forms is None:
            raise ParamsError("structured_outputs need a tokenizer, and this model came without one")
        constrain = limits.forms(params.structured_outputs)
    own = frozenset() if params.ignore_eos else limits.eos_ids
    turns = frozenset() if params.ignore_eos else limits.turn_ids
    return Request(
        prompt_ids=ids,
        params=params,
        max_tokens=_fitting_max_tokens(len(ids), params, limits.context),
        eos_ids=own,
        end_ids=own | turns | params.stop_ids,
        prompt=prompt,
        continues_text=continues_text,
        constrain=constrain,
    )


def _checked_prompt(prompt_ids: Sequence[int], vocab_size: int) -> list[int]:
    if not prompt_ids:
        raise PromptError("the prompt is empty: give at least one token to start from")
    for place, token in enumerate(prompt_ids):
        if not isinstance(token, Integral) or isinstance(token, bool) or not 0 <= token < vocab_size:
            raise PromptError(f"token {place} of the prompt is {token!r}: the model has tokens 0 to {vocab_size - 1}")
    return [int(token) for token in prompt_ids]


def _fitting_max_tokens(n_prompt: int, params: SamplingParams, context: int) -> int:
    if params.max_tokens is None:
        if n_prompt >= context:
            raise ContextOverflowError(
                f"the prompt has {n_prompt} tokens and the context is {context}: no room for an answer; "
                "shorten the prompt or give a larger context"
            )
        if params.min_tokens > context - n_prompt:
            raise ContextOverflowError(
                f"the prompt has {n_prompt} tokens and min_tokens is {params.min_tokens}: together more than "
                f"the context of {context}"
            )
        return context - n_prompt
    if n_prompt + params.max_tokens > context:
        raise ContextOverflowError(
            f"the prompt has {n_prompt} tokens and max_tokens is {params.max_tokens}: together "
            f"{n_prompt + params.max_tokens}, more than the context of {context}; shorten the prompt, ask for fewer "
            "tokens or give a larger context"
        )
    return params.max_tokens
