"""`circius tokenize`: see a text as the model sees it."""

from typing import TYPE_CHECKING, Annotated

import typer

from circius.base.errors import InvalidInputError
from circius.cli import options
from circius.cli.loading import find_tokenizer
from circius.cli.output import Output, table
from circius.cli.texts import read_prompt

if TYPE_CHECKING:
    from pathlib import Path

    from circius.text import Tokenizer

NAME = "tokenize"


def command(
    model: options.ModelArgument,
    text: Annotated[
        str | None,
        typer.Argument(metavar="TEXT", help="The text; `-` or nothing reads a pipe.", show_default=False),
    ] = None,
    file: options.TextFile = None,
    decode: Annotated[
        bool, typer.Option("--decode", metavar=options.FLAG, help="TEXT is token ids: print their text.")
    ] = False,
    as_chat: Annotated[
        bool,
        typer.Option("--chat", metavar=options.FLAG, help="TEXT is a user message: show it inside the chat template."),
    ] = False,
    special: Annotated[
        bool, typer.Option("--special", metavar=options.FLAG, help="With --decode, show control tokens too.")
    ] = False,
    system: options.System = None,
    template: options.TemplateOption = options.Template.AUTO,
    injection: options.InjectionOption = options.Injection.ESCAPE,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Show the tokens of a text: ids and pieces.

    MODEL may also be a tokenizer file. One line break at the end of a file or a pipe is dropped.
    """
    output = Output(as_json=as_json, quiet=quiet)
    if decode and as_chat:
        raise InvalidInputError("--decode and --chat were both given: give one of them")
    if system is not None and not as_chat:
        raise InvalidInputError("--system needs --chat: a plain text has no system prompt")
    given = read_prompt(text, file)
    ids = parse_ids(given) if decode else []
    from circius.text import load_tokenizer

    path = find_tokenizer(model, output)
    tokenizer = load_tokenizer(path)
    if decode:
        _print_text(ids, tokenizer, special=special, output=output)
        return
    if as_chat:
        ids = _template_ids(path, tokenizer, given, system, template, injection, output)
    else:
        ids = tokenizer.encode(given, bos=tokenizer.adds_bos)
    _print_ids(ids, tokenizer, output)


def parse_ids(text: str) -> list[int]:
    """The token ids in a text, separated by spaces or commas, in brackets or not.

    >>> parse_ids("[1, 42]")
    [1, 42]

    Raises:
        InvalidInputError: something in it is not a whole number.
    """
    words = text.replace("[", " ").replace("]", " ").replace(",", " ").split()
    for word in words:
        if not (word.isascii() and word.isdigit()):
            raise InvalidInputError(f"token ids must be whole numbers, 0 or more, got {word!r}")
    return [int(word) for word in words]


def _template_ids(
    path: "Path",
    tokenizer: "Tokenizer",
    text: str,
    system: str | None,
    template: options.Template,
    injection: options.Injection,
    output: Output,
) -> list[int]:
    from circius.text import Message, load_chat_template

    chat_template = load_chat_template(path, tokenizer, name=template.value, injection=injection.value)
    for sentence in chat_template.notes:
        output.note(sentence)
    messages = [] if system is None else [Message("system", system)]
    return chat_template.encode([*messages, Message("user", text)])


def _print_text(ids: list[int], tokenizer: "Tokenizer", *, special: bool, output: Output) -> None:
    unknown = [token for token in ids if token >= tokenizer.vocab_size]
    if unknown:
        raise InvalidInputError(f"token ids must be below {tokenizer.vocab_size}, got {unknown[0]}")
    text = tokenizer.decode(ids, skip_special=not special)
    if output.as_json:
        output.emit({"text": text, "ids": ids, "count": len(ids)})
    else:
        output.line(text)


def _print_ids(ids: list[int], tokenizer: "Tokenizer", output: Output) -> None:
    pieces = [tokenizer.piece(token) for token in ids]
    if output.as_json:
        output.emit({"ids": ids, "pieces": pieces, "count": len(ids)})
        return
    output.line(table(["id", "piece"], [[str(token), piece] for token, piece in zip(ids, pieces, strict=True)]))
    output.dim(f"{len(ids)} tokens")
