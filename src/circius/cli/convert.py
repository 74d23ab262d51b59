"""`circius convert`: the same weights in another layout."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circius.base.errors import InvalidInputError
from circius.cli import options
from circius.cli.loading import find_model
from circius.cli.output import Output, size
from circius.cli.progress import progress
from circius.cli.tokenizer_files import tokenizer_arguments

if TYPE_CHECKING:
    from circius.weights import Checkpoint
    from circius.weights.save import WrittenCheckpoint

NAME = "convert"


def command(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=options.MODEL_HELP, show_default=False)],
    target: Annotated[
        Path, typer.Argument(metavar="TARGET", help="The folder, or .gguf file, to write.", show_default=False)
    ],
    to: Annotated[options.Layout, typer.Option("--to", help="The layout to write.", show_default=False)],
    dtype: options.DTypeOption = options.DType.AUTO,
    quantization: options.Quantization = None,
    window: options.Window = None,
    rope_theta: options.RopeTheta = None,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a model in another checkpoint layout, tokenizer included.

    The logits stay the same, unless --dtype or --quantization asks for fewer bits; auto keeps the source's numbers.
    TARGET appears whole or not at all.
    """
    output = Output(as_json=as_json, quiet=quiet)
    if quantization is not None and dtype is not options.DType.AUTO:
        raise InvalidInputError("--dtype and --quantization both say how numbers are stored: give one of them")
    check_target(target, force=force)
    replaced = options.overrides(window, rope_theta)
    path = find_model(source, output)
    from circius.weights import open_checkpoint
    from circius.weights.convert import convert

    checkpoint = open_checkpoint(path, **replaced)
    for sentence in checkpoint.notes:
        output.note(sentence)
    arguments = tokenizer_of(checkpoint, to, output)
    with progress(f"converting {path.name}", output, unit="bytes") as on_progress:
        written = convert(
            checkpoint,
            target,
            to=to.value,
            dtype=None if dtype is options.DType.AUTO else options.torch_dtype(dtype),
            quantization=quantization,
            overwrite=force,
            on_progress=on_progress,
            **arguments,
        )
    report(written, output)


def check_target(target: Path, *, force: bool) -> None:
    """Raises InvalidInputError if something is at the target that must not be replaced; the writers look again."""
    is_free = not target.exists() or (target.is_dir() and not any(target.iterdir()))
    if not is_free and not force:
        raise InvalidInputError(f"{target} exists already: choose another name, or replace it with --force")


def report(written: "WrittenCheckpoint", output: Output) -> None:
    """Shows what was written, and what was chosen on the way."""
    for sentence in written.notes:
        output.note(sentence)
    if output.as_json:
        output.emit(
            {
                "path": str(written.path),
                "layout": written.layout,
                "stored_as": written.stored_as,
                "tensors": written.n_tensors,
                "bytes": written.n_bytes,
            }
        )
        return
    output.line(str(written.path))
    output.dim(f"{written.n_tensors} tensors · {size(written.n_bytes)} · {written.stored_as} · {written.layout}")


def tokenizer_of(checkpoint: "Checkpoint", to: options.Layout, output: Output) -> dict[str, Any]:
    """The writer's arguments that put the source's tokenizer beside the new weights; without one, says so."""
    from circius.engine.finding import has_tokenizer

    if not has_tokenizer(checkpoint.path):
        output.note(f"{checkpoint.path} has no tokenizer, so the new checkpoint has none either")
        return {}
    arguments = tokenizer_arguments(checkpoint.path, to, vocab_size=checkpoint.config.vocab_size)
    if checkpoint.format == "hf" and to is options.Layout.HF:
        arguments.pop("metadata")  # the source's own config.json says it already
    return arguments
