"""`circius merge`: an adapter into the weights that it was trained beside."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circius.base.errors import InvalidInputError
from circius.cli import options
from circius.cli.convert import check_target, tokenizer_of
from circius.cli.loading import find_model
from circius.cli.output import Output, size
from circius.cli.progress import progress

if TYPE_CHECKING:
    from circius.train.merge_error import MergeError
    from circius.weights.save import WrittenCheckpoint

NAME = "merge"


def command(
    base: Annotated[str, typer.Argument(metavar="BASE", help=options.MODEL_HELP, show_default=False)],
    adapter: Annotated[
        Path,
        typer.Argument(
            metavar="ADAPTER", help="The adapter's folder, in PEFT's form or Mistral's.", show_default=False
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="The folder, or .gguf file, to write.", show_default=False)
    ],
    to: Annotated[options.Layout, typer.Option("--to", help="The layout to write.")] = options.Layout.HF,
    dtype: options.DTypeOption = options.DType.AUTO,
    dequantize: Annotated[
        bool,
        typer.Option(
            "--dequantize",
            metavar=options.FLAG,
            help="Merge into the numbers that a quantised BASE stands for; without it such a BASE is refused.",
        ),
    ] = False,
    threads: options.Threads = None,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a model with an adapter merged into its weights, tokenizer included.

    Sums are made in float32, tensor by tensor, and rounded once, to the base's number format or --dtype. FOLDER appears
    whole or not at all. What rounding has cost is measured on a short built-in text: the largest difference of logits,
    and the divergence of what is predicted, between BASE with the adapter beside it and the weights as written.
    """
    output = Output(as_json=as_json, quiet=quiet)
    check_target(out, force=force)
    if not adapter.is_dir():
        raise InvalidInputError(f"there is no folder {adapter}: name the one that holds adapter_config.json")
    path = find_model(base, output)
    from circius.engine.devices import set_threads
    from circius.train.merge import check_base, write_merged
    from circius.train.merge_error import measure, probe_ids
    from circius.weights import open_checkpoint
    from circius.weights.adapter import read_adapter

    set_threads(threads)
    checkpoint = open_checkpoint(path)
    for sentence in checkpoint.notes:
        output.note(sentence)
    check_base(checkpoint, dequantize=dequantize)
    read = read_adapter(adapter, checkpoint.config)
    arguments = tokenizer_of(checkpoint, to, output)
    with progress(f"merging {adapter.name} into {path.name}", output, unit="bytes") as on_progress:
        written = write_merged(
            checkpoint,
            read,
            out,
            to=to.value,
            dtype=None if dtype is options.DType.AUTO else options.torch_dtype(dtype),
            dequantize=dequantize,
            overwrite=force,
            on_progress=on_progress,
            **arguments,
        )
    merged = open_checkpoint(written.path)
    _report(written, measure(checkpoint, read, merged, probe_ids(checkpoint)), read.described(), output)


def _report(written: "WrittenCheckpoint", error: "MergeError", described: str, output: Output) -> None:
    for sentence in written.notes:
        output.note(sentence)
    if output.as_json:
        output.emit(
            {
                "path": str(written.path),
                "layout": written.layout,
                "stored_as": written.stored_as,
                "adapter": described,
                "bytes": written.n_bytes,
                "probe_tokens": error.n_tokens,
                "max_logit_difference": error.largest,
                "mean_kl": error.mean_divergence,
                "max_kl": error.largest_divergence,
                "same_top_token": error.agreeing,
            }
        )
        return
    output.line(str(written.path))
    output.dim(f"{described} · {size(written.n_bytes)} · {written.stored_as} · {written.layout}")
    output.dim(
        f"error of the merge over {error.n_tokens} tokens: logits by {error.largest:.2g} at most, KL "
        f"{error.mean_divergence:.2g} nats a token ({error.largest_divergence:.2g} at most), the same likeliest token "
        f"after {error.agreeing:.1%}"
    )
