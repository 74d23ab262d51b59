"""The options that the verbs about training data share."""

from collections.abc import Callable
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circius.cli import options
from circius.cli.loading import find_tokenizer
from circius.cli.output import Output

if TYPE_CHECKING:
    from circius.text import ChatTemplate, Tokenizer

DATA = "Data"


class Form(StrEnum):
    """How examples are written in a file."""

    AUTO = "auto"
    MESSAGES = "messages"
    SHAREGPT = "sharegpt"
    ALPACA = "alpaca"
    PROMPT_RESPONSE = "prompt-response"
    SELF_INSTRUCT = "self-instruct"
    PREFERENCE = "preference"
    TEXT = "text"


class TooLong(StrEnum):
    """What becomes of a conversation that is longer than --seq-len."""

    ERROR = "error"
    DROP = "drop"
    SPLIT = "split"


Files = Annotated[
    list[Path],
    typer.Argument(metavar="FILE...", help="Files, or folders for all text files inside.", show_default=False),
]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help=f"Whose tokens and chat template; may be a tokenizer file. {options.MODEL_HELP}",
        show_default=False,
    ),
]
FormOption = Annotated[
    Form, typer.Option("--form", help="How examples are written; auto goes by a file's first.", rich_help_panel=DATA)
]
SeqLen = Annotated[
    int | None,
    typer.Option(
        "--seq-len", metavar="N", help="The longest example, in tokens.", show_default="any", rich_help_panel=DATA
    ),
]
TooLongOption = Annotated[
    TooLong,
    typer.Option(
        "--too-long",
        help="Longer conversations: an error if over 0.1 %, left out, or split between turns.",
        rich_help_panel=DATA,
    ),
]
Field = Annotated[
    str | None,
    typer.Option(
        "--field",
        metavar="KEY",
        help="Where the text of a record is.",
        show_default="text, else content",
        rich_help_panel=DATA,
    ),
]
Separator = Annotated[
    str | None,
    typer.Option(
        "--separator",
        metavar="LINE",
        help="The line between two documents of a plain text; '' for an empty one.",
        show_default="a file is one document",
        rich_help_panel=DATA,
    ),
]


def open_tokenizer(
    model: str, template: options.Template, output: Output
) -> tuple["Tokenizer", Callable[[], "ChatTemplate"]]:
    """The model's tokenizer, and what finds its chat template when there is a conversation to encode."""
    from circius.text import load_chat_template, load_tokenizer

    path = find_tokenizer(model, output)
    tokenizer = load_tokenizer(path)

    @cache
    def find() -> "ChatTemplate":
        found = load_chat_template(path, tokenizer, name=template.value)
        for sentence in found.notes:
            output.note(sentence)
        return found

    return tokenizer, find
