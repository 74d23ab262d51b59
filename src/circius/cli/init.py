"""`circius init`: a model of any size with random weights, for tests, benchmarks and people without weights."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circius.base.config import PRESETS, ModelConfig
from circius.base.errors import InvalidInputError
from circius.cli import options
from circius.cli.convert import check_target, report
from circius.cli.output import Output
from circius.cli.progress import progress
from circius.cli.tokenizer_files import tokenizer_arguments

if TYPE_CHECKING:
    from typer.models import OptionInfo

NAME = "init"
SHAPE = "Shape"
BYTE_VOCABULARY = 259
"""The 256 bytes, <unk>, <s> and </s>."""


def _size_option(flag: str, meaning: str) -> "OptionInfo":
    option: OptionInfo = typer.Option(
        flag, metavar="N", help=meaning, show_default="the preset's", rich_help_panel=SHAPE
    )
    return option


def command(
    target: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder, or .gguf file, to write.", show_default=False)
    ],
    preset: Annotated[
        str,
        typer.Option("--preset", metavar="|".join(PRESETS), help="The shape to start from.", rich_help_panel=SHAPE),
    ] = "v0.1",
    layers: Annotated[int | None, _size_option("--layers", "Layers.")] = None,
    dim: Annotated[int | None, _size_option("--dim", "Width of the model.")] = None,
    heads: Annotated[int | None, _size_option("--heads", "Query heads.")] = None,
    kv_heads: Annotated[int | None, _size_option("--kv-heads", "Key-value heads.")] = None,
    head_dim: Annotated[int | None, _size_option("--head-dim", "Width of a head.")] = None,
    hidden_dim: Annotated[int | None, _size_option("--hidden-dim", "Width of the feed-forward layer.")] = None,
    vocab: Annotated[int | None, _size_option("--vocab", "Tokens in the vocabulary.")] = None,
    context: Annotated[int | None, _size_option("--context", "Tokens that it is said to be trained for.")] = None,
    window: Annotated[
        str | None,
        typer.Option(
            "--window",
            metavar="N|none",
            help="Sliding window in tokens.",
            show_default="the preset's",
            rich_help_panel=SHAPE,
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="The same seed gives the same weights.")] = 0,
    to: Annotated[options.Layout, typer.Option("--to", help="The layout to write.")] = options.Layout.HF,
    dtype: Annotated[
        options.StoredDType, typer.Option("--dtype", help="Number format.")
    ] = options.StoredDType.BFLOAT16,
    quantization: options.Quantization = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            "--tokenizer",
            metavar="F",
            help="A tokenizer file, or a checkpoint that has one.",
            show_default="bytes as tokens",
        ),
    ] = None,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a checkpoint with random weights, of any size, in any layout.

    A full 7B is written in less than 2 GB of memory. Without --tokenizer the model gets one whose tokens are bytes,
    so that every verb works on it; what such a model says is noise.
    """
    output = Output(as_json=as_json, quiet=quiet)
    sizes = {
        "n_layers": layers,
        "dim": dim,
        "n_heads": heads,
        "n_kv_heads": kv_heads,
        "head_dim": head_dim,
        "hidden_dim": hidden_dim,
        "vocab_size": vocab,
        "context_len": context,
    }
    config = shape(preset, sizes, window)
    check_target(target, force=force)
    if tokenizer is None:
        if config.vocab_size < BYTE_VOCABULARY:
            raise InvalidInputError(
                f"--vocab must be {BYTE_VOCABULARY} or more for a tokenizer of bytes, got {config.vocab_size}: "
                "give a larger one, or a --tokenizer"
            )
        output.note("the tokenizer's tokens are bytes, the weights are random: what this model says is noise")
    from circius.weights.init import init_checkpoint

    with (
        _tokenizer_arguments(tokenizer, to, config) as arguments,
        progress(f"writing {target.name}", output, unit="bytes") as on_progress,
    ):
        written = init_checkpoint(
            config,
            target,
            to=to.value,
            seed=seed,
            dtype=options.torch_dtype(dtype),
            quantization=quantization,
            overwrite=force,
            on_progress=on_progress,
            **arguments,
        )
    report(written, output)


def shape(preset: str, sizes: dict[str, int | None], window: str | None) -> ModelConfig:
    """The preset's shape with those sizes that are not None, and the window if one is named.

    >>> shape("v0.1", {"n_layers": 2, "dim": None}, "none").window_size is None
    True

    Raises:
        InvalidInputError: there is no such preset, or the sizes contradict each other.
    """
    if preset not in PRESETS:
        raise InvalidInputError(f"unknown preset {preset!r}: choose one of {', '.join(PRESETS)}")
    changes: dict[str, Any] = {name: value for name, value in sizes.items() if value is not None}
    if window is not None:
        changes["window_size"] = options.parse_window(window)
    return replace(PRESETS[preset], **changes)


@contextmanager
def _tokenizer_arguments(tokenizer: Path | None, to: options.Layout, config: ModelConfig) -> Iterator[dict[str, Any]]:
    """The writer's arguments for the user's tokenizer, or for one of bytes, whose files are gone afterwards."""
    if tokenizer is not None:
        yield tokenizer_arguments(tokenizer, to, vocab_size=config.vocab_size)
        return
    from circius.text import write_byte_tokenizer

    with tempfile.TemporaryDirectory(prefix="circius-") as folder:
        write_byte_tokenizer(Path(folder))
        yield tokenizer_arguments(Path(folder), to, vocab_size=config.vocab_size)
