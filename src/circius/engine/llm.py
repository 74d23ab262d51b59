"""A model with its tokenizer and chat template, in the shape that vLLM users know."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch

from circius.base.config import ModelConfig, Window
from circius.base.errors import InvalidInputError
from circius.engine.asking import Asker
from circius.engine.bar import answer_bar
from circius.engine.devices import (
    is_exact_in_batches,
    pick_activations,
    pick_cache_dtype,
    pick_device,
    pick_dtype,
    set_threads,
)
from circius.engine.finding import find_template, has_tokenizer
from circius.engine.generate import BatchLimits, IsCancelled, OnToken, generate
from circius.engine.outputs import RequestOutput
from circius.engine.params import SamplingParams
from circius.engine.prefill import OnPrefill, unheard
from circius.engine.prompts import Conversation, Prompt, as_conversations, as_params, as_prompts
from circius.engine.reflection import reflector
from circius.engine.request import Request
from circius.engine.score import OnScored, Score, score_text
from circius.engine.speculate import INEXACT_DRAFTS, MOST_DRAFTED
from circius.engine.tools import ToolChoice
from circius.model import Adapter, Transformer
from circius.moderate.instruction import Kind
from circius.moderate.reflect import Verdict
from circius.text import ChatTemplate, Tokenizer, check_vocab, load_tokenizer
from circius.text.tools import Tool
from circius.weights import KEEP, Keep, load_model, open_checkpoint
from circius.weights.adapter import check_adapter, read_adapter
from circius.weights.hub import resolve


def never() -> bool:
    """No."""
    return False


class LLM:
    """A model that is ready to answer.

    Attributes:
        model: the transformer; `config` is its shape.
        tokenizer: None if the checkpoint came without one; then prompts are token ids.
        chat_template: None if the checkpoint has none; then there is no `chat`.
        context: the most tokens of a prompt and its answer together.
        asker: what makes requests of prompts and conversations, for those who run an engine of their own.
        notes: what was chosen or assumed on the way, one sentence each.
    """

    model: Transformer
    tokenizer: Tokenizer | None
    chat_template: ChatTemplate | None
    context: int
    asker: Asker
    limits: BatchLimits
    notes: tuple[str, ...]

    def __init__(
        self,
        model: str | Path,
        *,
        dtype: str | torch.dtype = "auto",
        device: str | torch.device = "auto",
        activations: str = "auto",
        kv_bits: int | None = None,
        context: int | None = None,
        window: Window | Keep = KEEP,
        rope_theta: float | None = None,
        threads: int | None = None,
        tokenizer: str | Path | None = None,
        chat_template: str = "auto",
        injection: str = "escape",
        max_rows: int = 8,
        chunk_size: int = 512,
        speculate: int | None = None,
        deterministic: bool = False,
        adapter: str | Path | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Loads a model.

        model: a folder, a .gguf file, an alias, or a Hub id that was pulled before; nothing is downloaded here.
        dtype: "auto" leaves it to the checkpoint and the device; or float32, bfloat16, float16, which unpack quantised
            weights.
        device: "auto" takes CUDA, then MPS, then the CPU.
        activations: how quantised weights take their inputs: "int8" rounds them and is fast, "float" is accurate, and
            "auto" takes int8 from a billion parameters on.
        kv_bits: of a number in the cache: 32, 16, or 8 with a scale for each token and head; None for the model's own,
            which is 16 for quantised weights.
        context: instead of the length that the weights were trained for.
        window, rope_theta: instead of what the checkpoint says; `window=None` means no window.
        threads: torch's CPU threads, for the whole process.
        tokenizer: a tokenizer file or folder, instead of the model's own.
        chat_template: "auto", Mistral's "v1", "v2" or "v3", or "model" for the template that came with the model.
        injection: what becomes of control tokens spelt out in a message: escape, strict (refuse) or allow.
        max_rows, chunk_size: answers computed at once, and tokens of one pre-fill forward.
        speculate: the most tokens to guess ahead from what the text repeats, and to verify in one step; 0 for none.
            The tokens stay the same; None takes 8 where that is so to the last bit of the logits, else none.
        deterministic: no bit of a result depends on what is computed beside it, on prompts found in the cache or on
            drafts, whatever the weights are; on the CPU, with the native kernels. Quantised weights with int8 inputs
            are so anyway; plain ones take longer to read prompts.
        adapter: a folder with a LoRA adapter, PEFT's or Mistral's, that is added to the weights as they are used.
        on_progress: called with the bytes loaded so far and in all.

        Raises:
            CirciusError: a child of it that says which input is wrong, and what is allowed.
        """
        limits = BatchLimits(max_rows=max_rows, chunk_size=chunk_size, speculate=speculate or 0)
        wanted_dtype = pick_dtype(dtype)
        place, device_note = pick_device(device)
        pick_cache_dtype(kv_bits, torch.float32)  # complains before anything is loaded
        pick_activations(activations, 0)  # the same
        _check_context(context)
        if adapter is not None:
            check_adapter(Path(adapter))
        set_threads(threads)
        path = resolve(str(model))
        checkpoint = open_checkpoint(path, window=window, rope_theta=rope_theta)
        notes = [*checkpoint.notes, *([device_note] if device_note else [])]
        own_tokenizer, template, no_chat = None, None, None
        if tokenizer is not None or has_tokenizer(path):
            own_tokenizer = load_tokenizer(path if tokenizer is None else Path(tokenizer))
            check_vocab(own_tokenizer, checkpoint.config.vocab_size)
            template, no_chat = find_template(path, own_tokenizer, chat_template, injection)
        else:
            notes.append(f"{path} has no tokenizer: prompts must be token ids")
        loaded = load_model(
            checkpoint,
            dtype=wanted_dtype,
            device=place,
            activations=pick_activations(activations, checkpoint.config.n_parameters),
            on_progress=on_progress,
            on_note=notes.append,
        )
        cache_dtype = pick_cache_dtype(kv_bits, loaded.dtype)
        if cache_dtype is not None:
            loaded.cache_dtype = cache_dtype
        if deterministic:
            loaded.fix_order()
        if adapter is not None:
            loaded.adapter = read_adapter(Path(adapter), loaded.config)
            notes.append(f"adapter: {loaded.adapter.described()}")
        if speculate is None and is_exact_in_batches(loaded):
            limits = replace(limits, speculate=MOST_DRAFTED)
        self._assemble(loaded, own_tokenizer, template, context, limits, no_chat=no_chat)
        self.notes = (*notes, *self.notes)

    @classmethod
    def of(
        cls,
        model: Transformer,
        *,
        tokenizer: Tokenizer | None = None,
        chat_template: ChatTemplate | None = None,
        context: int | None = None,
        max_rows: int = 8,
        chunk_size: int = 512,
        speculate: int = 0,
    ) -> Self:
        """An LLM of parts that are in memory already.

        Raises:
            TokenizerError: the tokenizer has tokens that the model does not have.
        """
        _check_context(context)
        if tokenizer is not None:
            check_vocab(tokenizer, model.config.vocab_size)
        self = cls.__new__(cls)
        limits = BatchLimits(max_rows=max_rows, chunk_size=chunk_size, speculate=speculate)
        self._assemble(model, tokenizer, chat_template, context, limits)
        return self

    def _assemble(
        self,
        model: Transformer,
        tokenizer: Tokenizer | None,
        chat_template: ChatTemplate | None,
        context: int | None,
        limits: BatchLimits,
        *,
        no_chat: str | None = None,
    ) -> None:
        self.model, self.tokenizer, self.chat_template, self.limits = model, tokenizer, chat_template, limits
        trained = model.config.context_len
        self.context = trained if context is None else context
        self.asker = Asker(
            tokenizer, chat_template, vocab_size=model.config.vocab_size, context=self.context, no_chat=no_chat
        )
        notes = [*(tokenizer.notes if tokenizer else ()), *(chat_template.notes if chat_template else ())]
        if self.context > trained:
            notes.append(
                f"the context is {self.context} tokens as asked; the weights were trained for {trained}, "
                "so answers past that may be poor"
            )
        if limits.speculate and not is_exact_in_batches(model):
            notes.append(INEXACT_DRAFTS)
        self.notes = tuple(notes)

    @property
    def config(self) -> ModelConfig:
        """The model's shape."""
        return self.model.config

    def read_adapter(self, folder: str | Path) -> Adapter:
        """An adapter of this model, ready to be given to an engine with a request.

        Raises:
            CheckpointError, InvalidInputError: there is none, or it is for another model.
        """
        return read_adapter(Path(folder), self.config).to(self.model.device)

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        on_token: OnToken | None = None,
        is_cancelled: IsCancelled = never,
        on_prefill: OnPrefill = unheard,
        progress: bool = False,
    ) -> list[RequestOutput]:
        """The answers to plain prompts, in their order; thousands of them are computed `max_rows` at a time.

        prompts: a text, token ids, or a list of either; a text gets BOS in front if the tokenizer adds one, ids are
        taken as they are.
        progress: show a bar on stderr.

        Raises:
            PromptError, ContextOverflowError, ParamsError: before anything is computed.
        """
        given = as_prompts(prompts)
        params = as_params(sampling_params, len(given))
        requests = [self.asker.completion(prompt, own) for prompt, own in zip(given, params, strict=True)]
        return self._run(requests, on_token, is_cancelled, on_prefill, progress=progress)

    def chat(
        self,
        messages: Conversation | Sequence[Conversation],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        tools: Sequence[Tool | Mapping[str, Any]] | None = None,
        tool_choice: ToolChoice | None = None,
        parallel_tool_calls: bool = True,
        continue_final: bool = False,
        guard: bool = False,
        on_token: OnToken | None = None,
        is_cancelled: IsCancelled = never,
        on_prefill: OnPrefill = unheard,
        progress: bool = False,
    ) -> list[RequestOutput]:
        """The answers to conversations, rendered by the chat template; otherwise as `generate`.

        tools: functions that the model may call, by OpenAI's definitions; the calls are each answer's `tool_calls`.
        tool_choice: "auto" lets the model choose, "required" wants a call, "none" forbids them; a mapping names the
            function. parallel_tool_calls: whether one answer may have several.
        continue_final: go on with the last message, which is the assistant's, instead of answering it.
        guard: put the guard prompt of the paper before each conversation (`circius.moderate.guard`).

        Raises:
            TemplateError: the model has no chat template, or it cannot render a conversation.
            PromptError, ContextOverflowError, ParamsError: before anything is computed.
        """
        given = as_conversations(messages)
        params = as_params(sampling_params, len(given))
        requests = [
            self.asker.chat(
                conversation,
                own,
                tools=tools,
                tool_choice=tool_choice,
                parallel_tool_calls=parallel_tool_calls,
                continue_final=continue_final,
                guard=guard,
            )
            for conversation, own in zip(given, params, strict=True)
        ]
        return self._run(requests, on_token, is_cancelled, on_prefill, progress=progress)

    def moderate(self, texts: str | Sequence[str], *, categories: str = "long", kind: Kind = "prompt") -> list[Verdict]:
        """What the model thinks of texts: the probability of each category, and that none applies.

        categories: the paper's "short" list, or the "long" one. kind: whether the texts are "prompt" or "answer".

        Raises:
            TemplateError: the model has no chat template.
            PromptError, InvalidInputError: as `circius.moderate.reflect`.
        """
        given = [texts] if isinstance(texts, str) else list(texts)
        return reflector(self, categories).verdicts(given, kind=kind)

    def score(
        self,
        text: str | Path | Iterable[str],
        *,
        stream: bool = False,
        stride: int | None = None,
        on_scored: OnScored | None = None,
    ) -> Score:
        """How well the model predicts a text, by the protocol that `circius.engine.score` describes.

        text: a text, the path of a UTF-8 file of any size, or pieces of a text as they come.
        stream: one pass through the rolling cache, at constant memory, instead of segments of `context` tokens.
        stride: the tokens by which a segment begins after the last; only without `stream`.

        Raises:
            PromptError: no tokenizer, too short a text, or a file that is not UTF-8.
            InvalidInputError: a stream from a model that has a layer without a window.
            ParamsError: a stride that does not fit the context.
        """
        return score_text(
            self.model,
            self.tokenizer,
            text,
            context=self.context,
            stream=stream,
            stride=stride,
            chunk_size=self.limits.chunk_size,
            on_scored=on_scored,
        )

    def _run(
        self,
        requests: Sequence[Request],
        on_token: OnToken | None,
        is_cancelled: IsCancelled,
        on_prefill: OnPrefill,
        *,
        progress: bool,
    ) -> list[RequestOutput]:
        with answer_bar(len(requests)) if progress else nullcontext(unheard) as on_ended:
            return generate(
                self.model,
                requests,
                tokenizer=self.tokenizer,
                limits=self.limits,
                on_token=on_token,
                is_cancelled=is_cancelled,
                on_prefill=on_prefill,
                on_ended=on_ended,
            )


def _check_context(context: int | None) -> None:
    if context is not None and (isinstance(context, bool) or not isinstance(context, int) or context < 1):
        raise InvalidInputError(f"context must be a whole number of tokens, 1 or more, got {context!r}")
