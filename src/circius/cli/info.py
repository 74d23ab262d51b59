"""`circius info`: what a model is, from its headers alone."""

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from circius.base.config import PRESETS, ModelConfig
from circius.base.errors import CirciusError
from circius.cli import options
from circius.cli.loading import find_model
from circius.cli.output import Output, size

if TYPE_CHECKING:
    from pathlib import Path

NAME = "info"

_BYTES = frozenset({"weight_bytes", "cache_bytes_per_token", "cache_bytes_at_context"})


def command(
    model: options.PresetOrModelArgument,
    window: options.Window = None,
    rope_theta: options.RopeTheta = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Describe a model, or a preset (v0.1, v0.2, v0.3), without loading its weights.

    Cache sizes are those of one sequence in 16-bit numbers, with the rolling buffer.
    """
    output = Output(as_json=as_json, quiet=quiet)
    replaced = options.overrides(window, rope_theta)
    if model in PRESETS:
        config, origin = _replaced(PRESETS[model], replaced), {"model": model}
    else:
        config, origin = _describe(model, replaced, output)
    described = {**origin, "parameters": config.n_parameters, **asdict(config), **cache_sizes(config)}
    if as_json:
        output.emit(described)
    else:
        output.rows((name, _shown(name, value)) for name, value in described.items())


def cache_sizes(config: ModelConfig) -> dict[str, int]:
    """The bytes of keys and values for one token, and for a sequence as long as the context.

    >>> cache_sizes(PRESETS["v0.1"])
    {'cache_bytes_per_token': 131072, 'cache_bytes_at_context': 536870912}
    """
    return {
        "cache_bytes_per_token": config.cache_bytes(1),
        "cache_bytes_at_context": config.cache_bytes(config.context_len),
    }


def _replaced(config: ModelConfig, replaced: dict[str, Any]) -> ModelConfig:
    fields = {"window_size" if name == "window" else name: value for name, value in replaced.items()}
    return replace(config, **fields)


def _describe(model: str, replaced: dict[str, Any], output: Output) -> tuple[ModelConfig, dict[str, Any]]:
    """The shape of a checkpoint, and what else its headers and its tokenizer's files say."""
    path = find_model(model, output)
    from circius.weights import open_checkpoint

    checkpoint = open_checkpoint(path, **replaced)
    for sentence in checkpoint.notes:
        output.note(sentence)
    tokenizer, template = _describe_text(path, output)
    return checkpoint.config, {
        "model": model,
        "path": str(path),
        "format": checkpoint.format,
        "dtype": checkpoint.stored_as,
        "weight_bytes": checkpoint.n_bytes,
        "bits_per_weight": round(8 * checkpoint.n_bytes / checkpoint.config.n_parameters, 2),
        "tokenizer": tokenizer,
        "template": template,
    }


def _describe_text(path: "Path", output: Output) -> tuple[str | None, str | None]:
    """The file that holds the tokenizer with its size, and the name of the chat template; None where there is none."""
    from circius.text import load_chat_template, load_tokenizer

    try:
        tokenizer = load_tokenizer(path)
    except CirciusError as error:
        output.note(f"no tokenizer: {error}")
        return None, None
    described = f"{type(tokenizer).__name__}, {tokenizer.vocab_size} tokens, {tokenizer.source.name}"
    try:
        template = load_chat_template(path, tokenizer)
    except CirciusError as error:
        output.note(f"no chat: {error}")
        return described, None
    for sentence in (*tokenizer.notes, *template.notes):
        output.note(sentence)
    return described, template.name


def _shown(name: str, value: object) -> str:
    if name in _BYTES and isinstance(value, int):
        return size(value)
    if value is None:
        return "none"
    return f"{value:,}" if name == "parameters" else str(value)
