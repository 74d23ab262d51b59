"""`circius tokenizer train`: a vocabulary of one's own."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from circius.base.errors import InvalidInputError
from circius.cli import data_options, options
from circius.cli.convert import check_target
from circius.cli.output import Output, size

NAME = "train"


class Chat(StrEnum):
    """The chat template that comes with a vocabulary."""

    NONE = "none"
    V1 = "v1"
    V3 = "v3"


def command(
    files: data_options.Files,
    vocab_size: Annotated[
        int, typer.Option("--vocab-size", metavar="N", help="Pieces in all, bytes included.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The folder to write.", show_default=False)],
    chat: Annotated[
        Chat,
        typer.Option(
            "--chat",
            help="The chat template to go with it: v3 has control tokens at ids 3 to 10, v1 marks turns in text.",
        ),
    ] = Chat.NONE,
    sample: Annotated[
        int, typer.Option("--sample", metavar="MIB", help="Learn from at most so much text, evenly taken from all.")
    ] = 200,
    coverage: Annotated[
        float,
        typer.Option(
            "--coverage", metavar="X", help="Share of the text whose characters get pieces; others are bytes."
        ),
    ] = 0.9999,
    field: data_options.Field = None,
    separator: data_options.Separator = None,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a vocabulary as Mistral's was: SentencePiece BPE with byte fallback and single digits.

    The folder is read by circius, transformers, mistral-common and SentencePiece; any text comes back as it was.
    The same texts and options give the same vocabulary.
    """
    output = Output(as_json=as_json, quiet=quiet)
    if sample < 1:
        raise InvalidInputError(f"--sample must be 1 or more, got {sample}")
    check_target(out, force=force)
    from circius.text.mistral_jinja import CONTROLS
    from circius.train.prepare import Reading
    from circius.train.vocabulary import Sample, VocabularyPlan, train_vocabulary
    from circius.train.write_vocabulary import write_vocabulary

    plan = VocabularyPlan(
        vocab_size=vocab_size, controls=CONTROLS[chat.value], sample_bytes=sample << 20, coverage=coverage
    )
    taken = Sample.of(files, plan.sample_bytes, Reading(field=field, separator=separator))
    if taken.share < 1:
        output.note(f"{taken.share:.0%} of {size(taken.n_bytes)} of text was learnt from (--sample)")
    output.dim(f"learning from {size(taken.n_bytes * taken.share)} of text")
    model = train_vocabulary(taken.sentences(), plan)
    write_vocabulary(model, out, chat=chat.value, overwrite=force)
    if as_json:
        output.emit({"path": str(out), "vocab_size": vocab_size, "chat": chat.value, "text_bytes": taken.n_bytes})
        return
    output.line(str(out))
    output.dim(f"{vocab_size:,} pieces · {size(len(model))}")
