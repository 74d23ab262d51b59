"""The `circius` command: its verbs, and the one place where errors become exit codes."""

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from inspect import cleandoc
from typing import Annotated

import typer

from circius.base.errors import PromptError
from circius.cli import (
    arena,
    batch,
    bench,
    chat,
    compare,
    convert,
    data,
    dpo,
    failure,
    finetune,
    generate,
    info,
    init,
    merge,
    moderate,
    mt_bench,
    options,
    pretrain,
    pull,
    quantize,
    score,
    serve,
    tokenize,
    tokenizer,
    verify,
)
from circius.cli import eval as evaluate


def unwrapped(docstring: str | None) -> str:
    """A docstring's paragraphs, each on one line, for a terminal of any width."""
    paragraphs = cleandoc(docstring or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def help_without_verb(context: typer.Context) -> None:
    """Prints the help of a group when none of its verbs is named."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


app = typer.Typer(
    name="circius",
    help="The Mistral 7B system: exact sliding-window attention, a rolling cache, every checkpoint format.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (
    *(pull, info, generate, chat, serve, batch, score, evaluate, compare, moderate, bench, convert, quantize, merge),
    *(init, verify, mt_bench, arena, tokenize, pretrain, finetune, dpo),
):
    app.command(verb.NAME, help=unwrapped(verb.command.__doc__))(verb.command)
for group in (data, tokenizer):
    branch = typer.Typer(name=group.NAME, help=group.HELP)
    for verb in group.VERBS:
        branch.command(verb.NAME, help=unwrapped(verb.command.__doc__))(verb.command)
    branch.callback(invoke_without_command=True)(help_without_verb)
    app.add_typer(branch)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", metavar=options.FLAG, help="Print the version and leave.")
    ] = False,
    show_traceback: Annotated[
        bool,
        typer.Option(
            "--traceback", metavar=options.FLAG, help="When something fails, show where in the program as well."
        ),
    ] = False,
) -> None:
    """Prints the version or the help when no verb is named."""
    if version:
        from importlib.metadata import version as installed_version

        typer.echo(f"circius {installed_version('circius')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def run(arguments: Sequence[str] | None = None) -> int:
    """The exit code of `circius` with these arguments, by default the process's own; its errors are one line each."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _quieten_libraries()
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets its escape, not an exception.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        _check_utf8(words)
        code = app(words, prog_name="circius", standalone_mode=False)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - this is where every error ends
        return failure.report(error, show_traceback="--traceback" in words[:1])
    return code if isinstance(code, int) else 0


def _check_utf8(words: Sequence[str]) -> None:
    """Python carries bytes that are not UTF-8 in an argument as lone surrogates; no tokenizer can take those."""
    for index, word in enumerate(words, start=1):
        raw = os.fsencode(word)
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise PromptError(
                f"argument {index} is not UTF-8: byte 0x{raw[error.start]:02x} at offset {error.start}; "
                "pass the text as UTF-8"
            ) from None


def _quieten_libraries() -> None:
    """What libraries warn of is for developers; what concerns the user, circius says in its own notes."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
