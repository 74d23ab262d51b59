"""The forms in which callers give prompts and conversations, brought into one. No torch here."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

from circius.base.errors import PromptError
from circius.engine.params import SamplingParams
from circius.text import Message, Tokenizer
from circius.text.message import as_messages

Prompt = str | Sequence[int] | Mapping[str, object]
"""A text, its token ids, or a mapping with "prompt" or "prompt_token_ids" as vLLM has it."""

Conversation = Sequence[Message | Mapping[str, Any]]


def as_prompts(prompts: Prompt | Sequence[Prompt]) -> list[str | Sequence[int]]:
    """Each prompt as a text or as token ids; one prompt alone becomes a list of one.

    >>> as_prompts("Hello"), as_prompts([1, 2, 3]), as_prompts([{"prompt_token_ids": [1, 2]}, "Hello"])
    (['Hello'], [[1, 2, 3]], [[1, 2], 'Hello'])

    Raises:
        PromptError: anything else.
    """
    if isinstance(prompts, str | Mapping):
        return [_as_prompt(prompts)]
    if not isinstance(prompts, Sequence) or isinstance(prompts, bytes):
        raise PromptError(f"prompts must be a text, token ids, or a list of these, got {type(prompts).__name__}")
    if prompts and all(_is_id(item) for item in prompts):
        return [list(prompts)]  # type: ignore[arg-type]
    return [_as_prompt(prompt) for prompt in prompts]


def encode_prompt(prompt: str | Sequence[int], tokenizer: Tokenizer | None, *, adds_bos: bool = True) -> Sequence[int]:
    """The ids of a plain prompt, which starts with BOS if the tokenizer adds one; ids are taken as they are.

    Raises:
        PromptError: a text without a tokenizer, or a text that gives no token at all.
    """
    if not isinstance(prompt, str):
        return prompt
    if tokenizer is None:
        raise PromptError("this model came without a tokenizer: give token ids, or name a tokenizer")
    ids = tokenizer.encode(prompt, bos=adds_bos and tokenizer.adds_bos)
    if not ids:
        raise PromptError("the prompt is empty, and this tokenizer adds no BOS token to start from: give some text")
    return ids


def as_conversations(messages: Conversation | Sequence[Conversation]) -> list[list[Message]]:
    """Each conversation as a list of messages; one conversation alone becomes a list of one.

    Raises:
        PromptError: anything that is no list of messages, or a message that is not valid.
    """
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence):
        raise PromptError(
            'messages must be a list of {"role": ..., "content": ...}, or a list of such lists, '
            f"got {type(messages).__name__}"
        )
    is_one = not messages or isinstance(messages[0], Message | Mapping)
    return [_as_conversation(each) for each in ([messages] if is_one else messages)]


def as_params(params: SamplingParams | Sequence[SamplingParams] | None, n_prompts: int) -> list[SamplingParams]:
    """Parameters for each prompt: one for all, one each, or the defaults.

    Raises:
        PromptError: another number of parameters than of prompts.
    """
    if params is None or isinstance(params, SamplingParams):
        return [params or SamplingParams()] * n_prompts
    given = list(params)
    for item in given:
        if not isinstance(item, SamplingParams):
            raise PromptError(f"parameters must be SamplingParams, got {type(item).__name__}")
    if len(given) != n_prompts:
        raise PromptError(f"got {len(given)} SamplingParams for {n_prompts} prompts: give one for all, or one for each")
    return given


def _as_prompt(prompt: object) -> str | Sequence[int]:
    if isinstance(prompt, Mapping):
        if "prompt_token_ids" in prompt:
            return _as_prompt(prompt["prompt_token_ids"])
        if isinstance(prompt.get("prompt"), str):
            return str(prompt["prompt"])
        raise PromptError(f'a prompt as a mapping needs "prompt" or "prompt_token_ids", got the keys {list(prompt)}')
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, Sequence) and not isinstance(prompt, bytes) and all(_is_id(item) for item in prompt):
        return list(prompt)
    raise PromptError(f"a prompt must be a text or a list of token ids, got {prompt!r:.80}")


def _as_conversation(conversation: object) -> list[Message]:
    if not isinstance(conversation, Sequence) or isinstance(conversation, str | bytes):
        raise PromptError(f"a conversation must be a list of messages, got {conversation!r:.80}")
    return as_messages(conversation)


def _is_id(item: object) -> bool:
    return isinstance(item, Integral) and not isinstance(item, bool)
