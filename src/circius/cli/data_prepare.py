"""`circius data prepare`: texts to token shards."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circius.base.errors import InvalidInputError
from circius.cli import data_options, options
from circius.cli.loading import find_tokenizer
from circius.cli.output import Output, table
from circius.cli.progress import progress

if TYPE_CHECKING:
    from circius.train.prepare import Prepared

NAME = "prepare"
_WORTH_A_PROCESS = 16 << 20
"""Bytes of files for each process that encodes: starting one takes a second or two."""


def command(
    files: data_options.Files,
    tokenizer: Annotated[
        str,
        typer.Option(
            "--tokenizer", "-t", metavar="MODEL", help=f"A tokenizer file, or: {options.MODEL_HELP}", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The folder to write.", show_default=False)],
    holdout: Annotated[
        float, typer.Option("--holdout", metavar="X", help="The share of documents to keep apart for evaluation.")
    ] = 0.0,
    field: data_options.Field = None,
    separator: data_options.Separator = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", metavar="N", help="Processes that encode.", show_default="by the size, up to the cores"),
    ] = None,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Encode texts once, for pre-training: documents as ids in memory-mapped files.

    FILE may be .txt, .jsonl, .json or .parquet, text and JSON also .gz. A document is BOS, its text, EOS. The same
    document always lands on the same side of --holdout. A FOLDER that was made of the same texts is left as it is.
    """
    output = Output(as_json=as_json, quiet=quiet)
    if jobs is not None and jobs < 1:
        raise InvalidInputError(f"--jobs must be 1 or more, got {jobs}")
    from circius.text import load_tokenizer
    from circius.train.prepare import Reading, prepare
    from circius.train.texts import text_files

    found = text_files(files)
    worth = sum(file.stat().st_size for file in found) // _WORTH_A_PROCESS
    with progress("encoding", output) as on_progress:
        prepared = prepare(
            files,
            load_tokenizer(find_tokenizer(tokenizer, output)),
            out,
            reading=Reading(field=field, separator=separator, holdout=holdout),
            n_workers=jobs or max(1, min(worth, os.cpu_count() or 1)),
            overwrite=force,
            on_progress=on_progress,
        )
    _report(prepared, output)


def _report(prepared: "Prepared", output: Output) -> None:
    if prepared.was_there:
        output.note("the folder was there already, made of the same texts in the same way; nothing was done")
    if n := prepared.meta["repeated"]:
        output.note(f"{n:,} documents are repetitions of others")
    parts = prepared.meta["parts"]
    if output.as_json:
        counts = {name: {key: part[key] for key in ("documents", "tokens", "bytes")} for name, part in parts.items()}
        output.emit({"path": str(prepared.folder), "tokenizer": prepared.meta["tokenizer"], **counts})
        return
    rows = [
        [name, *(f"{part[key]:,}" for key in ("documents", "tokens", "bytes")), _ratio(part["bytes"], part["tokens"])]
        for name, part in parts.items()
    ]
    output.line(table(["part", "documents", "tokens", "bytes of text", "bytes a token"], rows))
    output.dim(f"in {prepared.folder}")


def _ratio(n_bytes: int, n_tokens: int) -> str:
    return f"{n_bytes / n_tokens:.2f}" if n_tokens else ""
