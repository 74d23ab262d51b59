"""`circius data check`: every problem of training data, before anything is spent on them."""

from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from circius.base.errors import CheckpointError, InvalidInputError, ModelNotFoundError
from circius.cli import data_options, options
from circius.cli.output import Output, size, table
from circius.cli.progress import progress
from circius.cli.train_options import RANK

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from circius.train.check import FileReport, Report
    from circius.train.prospect import Prospect
    from circius.train.records import Problem
    from circius.train.too_long import Counts

NAME = "check"
_BAR = 40


def command(
    files: data_options.Files,
    model: data_options.ModelOption,
    form: data_options.FormOption = data_options.Form.AUTO,
    seq_len: data_options.SeqLen = None,
    too_long: data_options.TooLongOption = data_options.TooLong.ERROR,
    field: data_options.Field = None,
    separator: data_options.Separator = None,
    template: options.TemplateOption = options.Template.AUTO,
    write_corrected: Annotated[
        Path | None,
        typer.Option(
            "--write-corrected",
            metavar="OUT",
            help="Write what is valid or can be mended without a loss: to OUT.jsonl, or a folder for many files.",
            show_default=False,
        ),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option("--tokens", metavar="N", help="Say how many epochs N tokens of training are.", show_default=False),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", metavar="N", help="The same for N steps.", show_default=False)
    ] = None,
    step_tokens: Annotated[
        int | None, typer.Option("--step-tokens", metavar="N", help="Tokens of a step.", show_default=False)
    ] = None,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Look through training data: every problem with its line, tokens, lengths, epochs, what training would take.

    Conversations, preference pairs and texts are read exactly as training reads them. Nothing is changed;
    --write-corrected writes new files and says what it mended. Where MODEL has weights, steps, memory and the least
    time of a training with nothing but defaults are told. Exits with 1 if there was any problem.
    """
    output = Output(as_json=as_json, quiet=quiet)
    n_tokens = _planned_tokens(tokens, steps, step_tokens)
    from circius.train.check import Checker, Report
    from circius.train.prepare import Reading
    from circius.train.texts import text_files
    from circius.train.too_long import LengthRule

    rule = LengthRule(seq_len, too_long.value)
    found = text_files(files)
    tokenizer, find_template = data_options.open_tokenizer(model, template, output)
    report = Report()
    with _corrected_files(write_corrected, found, overwrite=force) as corrected:
        checker = Checker(
            tokenizer,
            find_template,
            rule,
            form=form.value,
            reading=Reading(field=field, separator=separator),
            corrected=corrected,
        )
        with progress("checking", output) as on_progress:
            for n_done, file in enumerate(found):
                on_progress(n_done, len(found), file.name)
                checker.check(file, report)
    epochs = None if n_tokens is None else report.epochs(n_tokens)
    for sentence in _remarks(report):
        output.note(sentence)
    ahead = _prospects(report, model, seq_len)
    if as_json:
        output.emit({**_as_json(report, epochs), "training": [_prospect_as_json(one) for one in ahead]})
    else:
        _show(report, epochs, output)
        _show_prospects(ahead, output)
    if report.problems:
        raise typer.Exit(1)


def histogram(lengths: "Sequence[int]") -> list[tuple[int, int]]:
    """How many lengths lie above half of each power of two and up to it, from the shortest to the longest.

    >>> histogram([1, 3, 4, 9])
    [(1, 1), (2, 0), (4, 2), (8, 0), (16, 1)]
    """
    bits = [(length - 1).bit_length() for length in lengths]
    if not bits:
        return []
    return [(1 << bit, bits.count(bit)) for bit in range(min(bits), max(bits) + 1)]


def _planned_tokens(tokens: int | None, steps: int | None, step_tokens: int | None) -> int | None:
    if (steps is None) != (step_tokens is None) or (tokens is not None and steps is not None):
        raise InvalidInputError("give --tokens, or --steps and --step-tokens together, to learn of the epochs")
    given = [value for value in (tokens, steps, step_tokens) if value is not None]
    if any(value < 1 for value in given):
        raise InvalidInputError(f"--tokens, --steps and --step-tokens must be 1 or more, got {given}")
    return tokens if steps is None or step_tokens is None else steps * step_tokens


@contextmanager
def _corrected_files(out: Path | None, files: "Sequence[Path]", *, overwrite: bool) -> "Iterator[dict[Path, TextIO]]":
    """Where each file's valid records go: `out` itself for one file if it is called .jsonl, else a folder."""
    from circius.weights.target import new_file, new_folder

    if out is None:
        yield {}
        return
    n_bytes = sum(file.stat().st_size for file in files)
    with ExitStack() as stack:
        if out.suffix == ".jsonl":
            if len(files) > 1:
                raise InvalidInputError(f"{out}: {len(files)} files are not corrected into one: name a folder")
            places = [stack.enter_context(new_file(out, n_bytes=n_bytes, overwrite=overwrite))]
        else:
            folder = stack.enter_context(new_folder(out, n_bytes=n_bytes, overwrite=overwrite))
            places = [folder / f"{_stem(file)}.jsonl" for file in files]
            if len(set(places)) < len(places):
                raise InvalidInputError(
                    f"{out}: two of the files have the same name, so they need folders of their own"
                )
        yield {
            file: stack.enter_context(place.open("w", encoding="utf-8"))
            for file, place in zip(files, places, strict=True)
        }


def _stem(file: Path) -> str:
    return file.name.removesuffix(".gz").rpartition(".")[0] or file.name


def _remarks(report: "Report") -> "Iterator[str]":
    for one in report.files:
        if one.unused_keys:
            keys = ", ".join(f"{key} ({n:,})" for key, n in sorted(one.unused_keys.items()))
            yield f"{one.file.name}: keys that training takes no notice of: {keys}"
        if one.n_with_pairs:
            yield (
                f"{one.file.name}: {one.n_with_pairs:,} records also have a chosen and a rejected answer; "
                "--form preference checks those"
            )
        if one.n_system_late:
            yield (
                f"{one.file.name}: {one.n_system_late:,} conversations have a system prompt and several answers; this "
                "template shows the prompt with the last question only, so earlier answers are learnt without it"
            )


def _prospects(report: "Report", model: str, seq_len: int | None) -> "list[Prospect]":
    """What training would take; nothing where MODEL is a tokenizer and no more."""
    from circius.model.adapter import AdapterConfig
    from circius.train.prospect import prospects

    try:
        return prospects(report, model, AdapterConfig(rank=RANK, alpha=2.0 * RANK), seq_len=seq_len)
    except (CheckpointError, ModelNotFoundError):
        return []


def _show_prospects(ahead: "Sequence[Prospect]", output: Output) -> None:
    if not ahead:
        return
    from circius.train.words import duration

    rows = [
        [
            " ".join(["circius", one.kind, *one.options]),
            f"{one.plan.n_steps:,}",
            f"{one.plan.n_epochs:.3g}",
            size(one.plan.n_bytes),
            "" if one.least_s is None else f"{duration(one.least_s)} or more",
        ]
        for one in ahead
    ]
    output.line(f"\n{table(['with the defaults', 'steps', 'epochs', 'memory', 'time'], rows)}")


def _prospect_as_json(one: "Prospect") -> dict[str, Any]:
    return {
        "verb": one.kind,
        "options": list(one.options),
        "steps": one.plan.n_steps,
        "epochs": one.plan.n_epochs,
        "memory_bytes": dict(one.plan.memory),
        "least_seconds": one.least_s,
    }


def _show(report: "Report", epochs: float | None, output: Output) -> None:
    for problem in report.problems:
        output.line(str(problem))
    for repair in report.repairs:
        output.line(f"{repair.place}: mended: {repair.message}")
    header = ["file", "form", "read", "examples", "tokens", "learnt", "longest", "split", "left out", "problems"]
    rows = [_row(one.file.name, one.form, one.counts, one.n_problems) for one in report.files]
    if len(report.files) > 1:
        rows.append(_row("all", "", report.total, len(report.problems)))
    output.line(table(header, rows))
    _show_lengths(report.total, output)
    if n_bytes := sum(one.n_bytes for one in report.files):
        output.line(f"{n_bytes:,} bytes of text")
    if n_lost := report.total.n_lost_answers:
        output.line(f"{n_lost:,} answers are too long even by themselves, with what they answer, and left out")
    if epochs is not None:
        output.line(f"the planned training is {epochs:.2f} epochs")
    mended = f", {len(report.repairs)} of them mended" if report.repairs else ""
    output.dim(f"{len(report.problems)} problem{'s' * (len(report.problems) != 1)}{mended}")


def _row(name: str, form: str, counts: "Counts", n_problems: int) -> list[str]:
    share = f" ({counts.n_learnt / counts.n_tokens:.0%})" if counts.n_tokens else ""
    numbers = [counts.n_whole, counts.n_examples, counts.n_tokens]
    rest = [counts.longest, counts.n_split, counts.n_dropped, n_problems]
    cells = [name, form, *(f"{number:,}" for number in numbers)]
    return [*cells, f"{counts.n_learnt:,}{share}", *(f"{number:,}" for number in rest)]


def _show_lengths(total: "Counts", output: Output) -> None:
    counted = histogram(total.lengths)
    if not counted:
        return
    most, width = max(n for _, n in counted), len(f"{counted[-1][0]:,}")
    output.line("\nlengths in tokens")
    for limit, n in counted:
        bar = "█" * -(-n * _BAR // most)
        output.line(f"  up to {limit:>{width},}  {bar} {n:,}")
    output.line()


def _as_json(report: "Report", epochs: float | None) -> dict[str, Any]:
    return {
        "files": [_file_as_json(one) for one in report.files],
        "total": _counts_as_json(report.total),
        "lengths": [{"up_to": limit, "count": n} for limit, n in histogram(report.total.lengths)],
        "problems": [_problem_as_json(problem) for problem in report.problems],
        "mended": [_problem_as_json(repair) for repair in report.repairs],
        "epochs": epochs,
    }


def _file_as_json(one: "FileReport") -> dict[str, Any]:
    known = {"file": str(one.file), "form": one.form, "problems": one.n_problems, "mended": one.n_repaired}
    return {**known, "text_bytes": one.n_bytes, **_counts_as_json(one.counts)}


def _counts_as_json(counts: "Counts") -> dict[str, int]:
    return {
        "read": counts.n_whole,
        "examples": counts.n_examples,
        "tokens": counts.n_tokens,
        "learnt": counts.n_learnt,
        "longest": counts.longest,
        "split": counts.n_split,
        "left_out": counts.n_dropped,
        "lost_answers": counts.n_lost_answers,
    }


def _problem_as_json(problem: "Problem") -> dict[str, Any]:
    return {"file": str(problem.place.file), "line": problem.place.line, "message": problem.message}
