"""`circius quantize`: the same model in fewer bits."""

from enum import StrEnum
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circius.base.errors import InvalidInputError
from circius.cli import options
from circius.cli.convert import check_target, tokenizer_of
from circius.cli.loading import find_model
from circius.cli.output import Output, size
from circius.cli.progress import progress
from circius.cli.texts import check_readable, read_text_file

if TYPE_CHECKING:
    from circius.quant.policy import Bits, Plan, Recipe
    from circius.quant.quantize import Quantized
    from circius.weights import Checkpoint

NAME = "quantize"
CALIBRATION_TOKENS = 32_768


class ChosenBits(StrEnum):
    """What the matrices of the layers get."""

    FOUR = "4"
    EIGHT = "8"
    KEEP = "keep"


class Method(StrEnum):
    """How weights are rounded."""

    NEAREST = "nearest"
    GPTQ = "gptq"


class Scales(StrEnum):
    """The number format of scales and minima."""

    FP16 = "fp16"
    BF16 = "bf16"


def command(
    model: options.ModelArgument,
    target: Annotated[
        Path | None,
        typer.Argument(metavar="TARGET", help="The folder to write.", show_default="MODEL's name and the bits, here"),
    ] = None,
    bits: Annotated[
        ChosenBits | None,
        typer.Option(
            "--bits",
            help="Bits of the weights; keep takes over those of a quantised model exactly.",
            show_default="keep for a quantised model, else 4",
        ),
    ] = None,
    group: Annotated[
        int | None,
        typer.Option("--group", metavar="32|64|128", help="4-bit weights that share a scale.", show_default="32"),
    ] = None,
    asymmetric: Annotated[
        bool | None,
        typer.Option(
            "--asymmetric/--symmetric",
            metavar=options.FLAG,
            help="Whether groups of 4-bit weights have a minimum too, for 16 bits more a group.",
            show_default="symmetric",
        ),
    ] = None,
    method: Annotated[
        Method, typer.Option("--method", help="Round each weight to nearest, or make up for the errors (gptq).")
    ] = Method.NEAREST,
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration", metavar="F", help="For gptq: a text (UTF-8) like those that the model will read."
        ),
    ] = None,
    calibration_tokens: Annotated[
        int, typer.Option("--calibration-tokens", metavar="N", help="How much of it to use, spread evenly.")
    ] = CALIBRATION_TOKENS,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="GLOB=BITS",
            help="Other bits (4, 8, 16 or keep) for weights by name, such as '*.down_proj.weight=8'; repeatable.",
        ),
    ] = None,
    scales: Annotated[
        Scales | None,
        typer.Option("--scales", help="Number format of the scales.", show_default="fp16 if they lie in its range"),
    ] = None,
    threads: options.Threads = None,
    window: options.Window = None,
    rope_theta: options.RopeTheta = None,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a model with its weights in 4 or 8 bits, ready to be used in place.

    Weights stream through: with nearest one at a time, with gptq one layer. The embedding and the output get 8 bits,
    norms stay as they are. TARGET appears whole or not at all.
    """
    output = Output(as_json=as_json, quiet=quiet)
    replaced = options.overrides(window, rope_theta)
    _check_calibration(method, calibration, calibration_tokens)
    if target is not None:
        check_target(target, force=force)
    parsed = [_override(entry) for entry in overrides or []]
    path = find_model(model, output)
    begun = perf_counter()
    from circius.engine.devices import set_threads
    from circius.quant.quantize import write_quantized
    from circius.weights import open_checkpoint
    from circius.weights.convert import check_apart

    recipe = _recipe(bits, group, asymmetric, parsed, scales)
    set_threads(threads)
    checkpoint = open_checkpoint(path, **replaced)
    for sentence in checkpoint.notes:
        output.note(sentence)
    if target is None:
        target = _default_target(path, recipe, checkpoint)
        check_target(target, force=force)
    check_apart(path, target)
    arguments = tokenizer_of(checkpoint, options.Layout.HF, output)
    rows = None if calibration is None else _excerpts(checkpoint, calibration, calibration_tokens, output)
    plan = _planned(checkpoint, recipe, method, output)
    with progress(f"quantising {path.name}", output, unit="bytes") as on_progress:
        done = write_quantized(
            checkpoint, plan, target, calibration=rows, overwrite=force, on_progress=on_progress, **arguments
        )
    _report(done, plan, method, perf_counter() - begun, output)


def _check_calibration(method: Method, calibration: Path | None, n_tokens: int) -> None:
    if method is Method.GPTQ and calibration is None:
        raise InvalidInputError(
            "--method gptq needs a --calibration text: a file (UTF-8) of 200 KB or more, of the kind and in the "
            "languages that the model will be used for, and not the text that it will be measured on"
        )
    if method is Method.NEAREST and calibration is not None:
        raise InvalidInputError("--method nearest uses no text: ask for --method gptq, or leave --calibration out")
    if n_tokens < 1:
        raise InvalidInputError(f"--calibration-tokens must be 1 or more, got {n_tokens}")
    if calibration is not None:
        check_readable(calibration)


def _override(entry: str) -> tuple[str, "Bits"]:
    """The pattern and the bits of `GLOB=BITS`.

    >>> _override("*.down_proj.weight=8")
    ('*.down_proj.weight', 8)
    """
    known: dict[str, Bits] = {"4": 4, "8": 8, "16": 16, "keep": "keep"}
    pattern, _, bits = entry.rpartition("=")
    if not pattern or bits not in known:
        raise InvalidInputError(
            f"--set must be GLOB=BITS with 4, 8, 16 or keep, for example 'model.layers.0.*=8', got {entry!r}"
        )
    return pattern, known[bits]


def _recipe(
    bits: ChosenBits | None,
    group: int | None,
    asymmetric: bool | None,
    overrides: list[tuple[str, "Bits"]],
    scales: Scales | None,
) -> "Recipe":
    import torch

    from circius.quant.policy import Recipe

    kinds: dict[ChosenBits | None, Bits | None] = {
        None: None, ChosenBits.FOUR: 4, ChosenBits.EIGHT: 8, ChosenBits.KEEP: "keep",
    }  # fmt: skip
    dtypes = {None: None, Scales.FP16: torch.float16, Scales.BF16: torch.bfloat16}
    return Recipe(bits=kinds[bits], group=group, has_mins=asymmetric, overrides=tuple(overrides), scales=dtypes[scales])


def _default_target(path: Path, recipe: "Recipe", checkpoint: "Checkpoint") -> Path:
    bits = recipe.bits or ("keep" if checkpoint.is_quantised else 4)
    return Path(f"{path.name.removesuffix('.gguf')}-{'packed' if bits == 'keep' else f'int{bits}'}")


def _excerpts(checkpoint: "Checkpoint", file: Path, n_tokens: int, output: Output) -> list[list[int]]:
    from circius.quant.calibration import ROW_TOKENS, excerpts
    from circius.text import load_tokenizer

    tokenizer = load_tokenizer(checkpoint.path)
    row_tokens = min(ROW_TOKENS, checkpoint.config.context_len)
    rows = excerpts(tokenizer, read_text_file(file), n_tokens=n_tokens, row_tokens=row_tokens)
    output.note(f"calibration: {sum(map(len, rows))} tokens in {len(rows)} excerpts from {file.name}")
    return rows


def _planned(checkpoint: "Checkpoint", recipe: "Recipe", method: Method, output: Output) -> "Plan":
    from circius.quant.policy import make_plan

    with progress("looking at the weights", output, unit="bytes") as on_progress:
        plan = make_plan(checkpoint, recipe, on_progress)
    if method is Method.GPTQ and not any(decided.is_compensated for decided in plan.weights):
        raise InvalidInputError(
            "--method gptq rounds 4-bit weights, and none would be rounded: the model is taken over as it is, or has 8 "
            "bits; ask for --bits 4, and for another --group or --asymmetric if it has 4 bits already"
        )
    for sentence in plan.notes:
        output.note(sentence)
    if not output.as_json:
        output.dim(f"{plan.bits_per_weight:.2f} bits a weight, {size(plan.n_bytes)}; {plan.origins}")
    return plan


def _report(done: "Quantized", plan: "Plan", method: Method, elapsed_s: float, output: Output) -> None:
    from circius.engine.machine import peak_memory_bytes

    written, worst = done.written, done.worst
    memory_bytes = peak_memory_bytes()
    for sentence in written.notes:
        output.note(sentence)
    if output.as_json:
        fields: dict[str, Any] = {
            "path": str(written.path),
            "method": method.value,
            "stored_as": written.stored_as,
            "bits_per_weight": plan.bits_per_weight,
            "bytes": written.n_bytes,
            "tensors": written.n_tensors,
            "mean_error": done.mean,
            "worst_error": worst and worst.relative,
            "worst_weight": worst and worst.name,
            "elapsed_s": elapsed_s,
            "peak_memory_bytes": memory_bytes,
        }
        output.emit(fields)
        return
    output.line(str(written.path))
    if worst is not None:
        output.dim(f"error of the weights (rms): mean {done.mean:.2%}, worst {worst.relative:.2%} in {worst.name}")
    memory = "" if memory_bytes is None else f" · memory {size(memory_bytes)}"
    output.dim(f"{written.n_tensors} weights · {size(written.n_bytes)} · {elapsed_s:.1f} s{memory}")
