"""`circius bench`: how fast a model runs here, beside what the machine does at most."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from circius.base.errors import ParamsError
from circius.cli import options
from circius.cli.loading import ModelOptions, open_llm
from circius.cli.output import Output, size, table
from circius.cli.progress import progress

if TYPE_CHECKING:
    from circius import LLM
    from circius.engine.bench import Measured, Report

NAME = "bench"
WHAT = "What to time"
HEADER = ("test", "tok/s", "slowest", "fastest", "GB/s", "of limit", "TFLOP/s", "of limit")


def _counts_option(flag: str, meaning: str) -> Any:
    return typer.Option(flag, metavar="N,N,...|none", help=meaning, rich_help_panel=WHAT)


def command(
    model: options.ModelArgument,
    prompt_lengths: Annotated[
        str, _counts_option("--prompt-lengths", "Tokens of the prompts to read, one figure each.")
    ] = "512,2048",
    contexts: Annotated[
        str, _counts_option("--contexts", "Tokens before those that are decoded, one figure each.")
    ] = "0,4096,16384",
    batches: Annotated[
        str,
        _counts_option(
            "--batches",
            "Streams decoded at once: contexts are tried with the first number, the others with the first context.",
        ),
    ] = "1,8,32",
    tokens: Annotated[
        int, typer.Option("--tokens", metavar="N", min=1, help="Tokens decoded a stream.", rich_help_panel=WHAT)
    ] = 128,
    repeats: Annotated[
        int,
        typer.Option("--repeats", metavar="N", min=1, help="Times that each figure is taken.", rich_help_panel=WHAT),
    ] = 3,
    threads: options.Threads = None,
    dtype: options.DTypeOption = options.DType.AUTO,
    device: options.DeviceOption = "auto",
    activations: options.ActivationsOption = options.Activations.AUTO,
    kv_bits: options.KVBitsOption = None,
    context: options.Context = None,
    window: options.Window = None,
    rope_theta: options.RopeTheta = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure speed: reading prompts (pp) and decoding tokens (tg), beside what the machine does at most.

    Figures are medians. A context before decoding is synthetic: the cache is filled with noise, which makes no
    difference to the time, and no text is read. The limits, bytes read from memory and products in the model's number
    format, are measured before and after; what the model reads and computes is counted from its shape.
    """
    output = Output(as_json=as_json, quiet=quiet)
    wanted = {
        "prompt_lengths": parse_counts("--prompt-lengths", prompt_lengths, least=1),
        "contexts": parse_counts("--contexts", contexts, least=0),
        "batches": parse_counts("--batches", batches, least=1),
    }
    llm = open_llm(
        ModelOptions(
            model=model,
            dtype=dtype,
            device=device,
            activations=activations,
            kv_bits=kv_bits,
            context=context,
            window=window,
            rope_theta=rope_theta,
            threads=threads,
        ),
        output,
    )
    report = _measure(llm, wanted, tokens, repeats, output)
    if as_json:
        output.emit({"model": model, **_fields(llm, report)})
        return
    if report.measured:
        output.line(table(HEADER, [_row(each, report) for each in report.measured]))
    limits = report.limits
    products = " · ".join(f"{name} {speed / 1e12:.3g} TFLOP/s" for name, speed in limits.multiply.items())
    one = f"{limits.read_one / 1e9:.1f} with one thread"
    output.dim(f"limits: read {limits.read_all / 1e9:.1f} GB/s ({one}) · {products}")
    output.dim(_closing(llm, report))


def _measure(llm: "LLM", wanted: dict[str, list[int]], n_tokens: int, repeats: int, output: Output) -> "Report":
    from circius.engine.bench import measure, tasks_of

    tasks = tasks_of(**wanted, n_tokens=n_tokens)
    with progress("measuring", output) as on_progress:
        report = measure(
            llm.model,
            tasks,
            repeats=repeats,
            context=llm.context,
            limits=llm.limits,
            on_turn=on_progress,
        )
    for reason in report.skipped:
        output.note(f"skipped {reason}")
    if any(each.task.context for each in report.measured):
        output.note("contexts are synthetic: the cache is filled with noise, no text is read")
    disturbed = [each.task.name for each in report.measured if each.is_disturbed]
    if disturbed:
        output.note(f"others used this machine meanwhile, so these figures are too low: {', '.join(disturbed)}")
    return report


def _fields(llm: "LLM", report: "Report") -> dict[str, Any]:
    """The object for machines."""
    from circius.engine import machine
    from circius.kernels import native

    return {
        "machine": {
            "processor": machine.processor_name(),
            "cores": machine.n_cores(),
            "device": str(llm.model.device),
            "threads": native.n_threads(),
            "kernels": native.describe(),
        },
        "weight_bytes": report.weight_bytes,
        "arithmetic": report.arithmetic,
        "limits": {
            "read_one_bytes_per_s": report.limits.read_one,
            "read_all_bytes_per_s": report.limits.read_all,
            "operations_per_s": report.limits.multiply,
        },
        "load_before": report.load[0],
        "load_after": report.load[1],
        "figures": [_described(each, report) for each in report.measured],
        "skipped": list(report.skipped),
        "peak_memory_bytes": report.peak_memory_bytes,
    }


def parse_counts(option: str, text: str, *, least: int) -> list[int]:
    """The numbers of a list such as "512,2048"; "none" is empty.

    >>> parse_counts("--contexts", "0,4096", least=0)
    [0, 4096]

    Raises:
        ParamsError: something else than whole numbers from `least` on.
    """
    if text == "none":
        return []
    words = text.split(",")
    if not all(word.isascii() and word.isdigit() and int(word) >= least for word in words):
        raise ParamsError(
            f"{option} must be whole numbers of at least {least} with commas between, or none, got {text!r}"
        )
    return [int(word) for word in words]


def _described(each: "Measured", report: "Report") -> dict[str, Any]:
    task = each.task
    read, done = each.bytes_read / each.seconds, each.operations / each.seconds
    limit = report.limits.multiply.get(report.arithmetic)
    return {
        "name": task.name,
        "kind": task.kind,
        "tokens": task.n_tokens,
        "context": task.context,
        "streams": task.n_rows,
        "tokens_per_s": each.tokens_per_s,
        "seconds": [run.seconds for run in each.runs],
        "foreign_shares": [run.foreign_share for run in each.runs],
        "disturbed": each.is_disturbed,
        "bytes_per_s": read,
        "share_of_read_limit": read / report.limits.read_all,
        "operations_per_s": done,
        "share_of_arithmetic_limit": None if limit is None else done / limit,
    }


def _row(each: "Measured", report: "Report") -> list[str]:
    figure = _described(each, report)
    slowest, fastest = each.span
    share = figure["share_of_arithmetic_limit"]
    return [
        each.task.name,
        *(f"{speed:.2f}" for speed in (each.tokens_per_s, slowest, fastest)),
        f"{figure['bytes_per_s'] / 1e9:.3g}",
        f"{figure['share_of_read_limit']:.0%}",
        f"{figure['operations_per_s'] / 1e12:.3g}",
        "unknown" if share is None else f"{share:.0%}",
    ]


def _closing(llm: "LLM", report: "Report") -> str:
    from circius.engine import machine
    from circius.kernels import native

    parts = [
        f"{machine.processor_name()}, {machine.n_cores()} cores, {native.n_threads()} threads",
        native.describe(),
        f"weights {size(report.weight_bytes)} a pass, products in {report.arithmetic}",
    ]
    if report.peak_memory_bytes is not None:
        parts.append(f"memory {size(report.peak_memory_bytes)}")
    before, after = report.load
    if before is not None:
        parts.append(f"load before and after: {before:.1f}, {after:.1f}")
    return " · ".join(parts)
