"""`circius data show`: examples as a model sees them, and what of them it learns."""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circius.base.errors import InvalidInputError
from circius.cli import data_options, options
from circius.cli.output import Output, table, visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from circius.text import Tokenizer
    from circius.train.example import Example
    from circius.train.shown import Shown

NAME = "show"
LEARNT, CONTROL = "green", "bold"


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Conversations, pairs or texts.", show_default=False)],
    model: data_options.ModelOption,
    count: Annotated[int, typer.Option("--count", "-n", metavar="N", help="How many to show.")] = 3,
    line: Annotated[int, typer.Option("--line", metavar="N", help="Begin with the first from this line on.")] = 1,
    ids: Annotated[
        bool, typer.Option("--ids", metavar=options.FLAG, help="One token a line, with its id and piece.")
    ] = False,
    form: data_options.FormOption = data_options.Form.AUTO,
    seq_len: data_options.SeqLen = None,
    too_long: data_options.TooLongOption = data_options.TooLong.SPLIT,
    field: data_options.Field = None,
    separator: data_options.Separator = None,
    template: options.TemplateOption = options.Template.AUTO,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Show examples of training data, the learnt tokens in green.

    Where there are no colours, learnt stretches stand between ⟦ and ⟧. Control tokens are shown as their pieces.
    """
    output = Output(as_json=as_json, quiet=quiet)
    if count < 1:
        raise InvalidInputError(f"--count must be 1 or more, got {count}")
    from circius.train.prepare import Reading
    from circius.train.shown import shown_examples
    from circius.train.too_long import LengthRule

    tokenizer, find_template = data_options.open_tokenizer(model, template, output)
    examples = shown_examples(
        file,
        tokenizer,
        find_template,
        LengthRule(seq_len, too_long.value),
        form=form.value,
        reading=Reading(field=field, separator=separator),
    )
    chosen = itertools.islice((one for one in examples if one.place.line >= line), count)
    if as_json:
        output.emit({"examples": [_as_json(one) for one in chosen]})
        return
    for one in chosen:
        n_learnt, n_tokens = one.example.n_learnt, len(one.example)
        output.line(f"{one.place}{one.title}: {n_tokens} tokens, {n_learnt} learnt")
        if ids:
            output.line(_table(one.example, tokenizer))
        else:
            _print_text(one.example, tokenizer, output)
        output.line()


def stretches(example: "Example", tokenizer: "Tokenizer") -> "Iterator[tuple[str, bool, bool]]":
    """The example's text in stretches: each whole, whether it is learnt, and whether it is a control token."""
    kinds = [(learnt, tokenizer.is_special(token)) for token, learnt in _tokens(example)]
    at = 0
    for (learnt, is_control), group in itertools.groupby(kinds):
        tokens = example.ids[at : at + len(list(group))].tolist()
        at += len(tokens)
        if is_control:
            yield from ((tokenizer.piece(token), learnt, True) for token in tokens)
        else:
            raw = b"".join(map(tokenizer.token_bytes, tokens))
            yield raw.decode("utf-8", errors="replace"), learnt, False


def marked(example: "Example", tokenizer: "Tokenizer") -> str:
    """The example's text with learnt stretches between ⟦ and ⟧."""
    runs = itertools.groupby(stretches(example, tokenizer), key=lambda stretch: stretch[1])
    texts = (("".join(text for text, *_ in run), learnt) for learnt, run in runs)
    return "".join(f"⟦{text}⟧" if learnt else text for text, learnt in texts)


def _tokens(example: "Example") -> "Iterator[tuple[int, bool]]":
    """Each id, and whether it is predicted; the first never is."""
    learnt = example.learnt.tolist()
    return zip(example.ids.tolist(), [False, *learnt[1:]], strict=True)


def _print_text(example: "Example", tokenizer: "Tokenizer", output: Output) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal or console.no_color:
        output.line(visible(marked(example, tokenizer)))
        return
    text = Text()
    for part, learnt, is_control in stretches(example, tokenizer):
        styles = [LEARNT] * learnt + [CONTROL] * is_control
        text.append(visible(part), " ".join(styles) or None)
    output.show_notes()
    console.print(text, soft_wrap=True)


def _table(example: "Example", tokenizer: "Tokenizer") -> str:
    rows = [[str(token), visible(tokenizer.piece(token)), "learnt" * learnt] for token, learnt in _tokens(example)]
    return table(["id", "piece", ""], rows)


def _as_json(one: "Shown") -> dict[str, object]:
    ids, learnt = zip(*_tokens(one.example), strict=True)
    return {"file": str(one.place.file), "line": one.place.line, "ids": list(ids), "learnt": list(learnt)}
