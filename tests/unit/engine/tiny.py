"""Real tokenizers on tiny random models: the smallest things that the engine runs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from circius.base.config import Window
from circius.engine.llm import LLM
from circius.engine.params import SamplingParams
from circius.model import Transformer
from circius.text import load_chat_template, load_tokenizer, write_byte_tokenizer
from tests.models import random_model, tiny_config
from tests.vocabularies import mistral

BYTE_VOCAB = 259


def tiny_model(*, window: Window = None, vocab_size: int = 61, seed: int = 0, **shape: int) -> Transformer:
    return random_model(tiny_config(window=window, vocab_size=vocab_size, **shape), seed).requires_grad_(False)


def byte_llm(folder: Path, *, window: Window = None, seed: int = 0, context: int = 400, **limits: int) -> LLM:
    """A model of bytes, with the template of Mistral's first instruct model."""
    write_byte_tokenizer(folder)
    tokenizer = load_tokenizer(folder)
    return LLM.of(
        tiny_model(window=window, vocab_size=BYTE_VOCAB, seed=seed),
        tokenizer=tokenizer,
        chat_template=load_chat_template(folder, tokenizer, name="v1"),
        context=context,
        **limits,
    )


def mistral_llm(version: str = "v3", *, window: Window = None, context: int = 4000, **limits: int) -> LLM:
    """A model of one of Mistral's own vocabularies, with the template that belongs to it."""
    tokenizer = mistral(version)
    return LLM.of(
        tiny_model(window=window, vocab_size=tokenizer.vocab_size),
        tokenizer=tokenizer,
        chat_template=load_chat_template(tokenizer.source, tokenizer, name=version),
        context=context,
        **limits,
    )


def answer_ids(llm: LLM, prompt: Sequence[int], params: SamplingParams) -> list[int]:
    return llm.generate(prompt, params)[0].outputs[0].token_ids


@contextmanager
def stopping(model: Transformer, *, after: int = 2) -> Iterator[None]:
    """Inside, Ctrl-C comes in the forward after so many."""
    n_seen = 0

    def hook(*_: object) -> None:
        nonlocal n_seen
        n_seen += 1
        if n_seen > after:
            raise KeyboardInterrupt

    handle = model.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()
