"""`circius score`: how well a model predicts a text."""

import math
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from circius.base.errors import InvalidInputError
from circius.cli import options
from circius.cli.answer import peak_memory_bytes
from circius.cli.loading import ModelOptions, open_llm
from circius.cli.output import Output, size
from circius.cli.progress import progress
from circius.cli.texts import check_readable

if TYPE_CHECKING:
    from circius.text import Tokenizer

NAME = "score"
SAMPLE_BYTES = 2**16


def command(
    model: options.ModelArgument,
    file: Annotated[Path, typer.Option("--file", metavar="F", help="The text to score (UTF-8).", show_default=False)],
    stream: Annotated[
        bool,
        typer.Option(
            "--stream",
            metavar=options.FLAG,
            help="One pass through the rolling cache: any length, constant memory; needs a window.",
        ),
    ] = False,
    stride: Annotated[
        int | None,
        typer.Option(
            "--stride",
            metavar="N",
            help="Begin a segment every N tokens, so that each token sees more before it.",
            show_default="the context: segments side by side",
        ),
    ] = None,
    threads: options.Threads = None,
    dtype: options.DTypeOption = options.DType.AUTO,
    device: options.DeviceOption = "auto",
    activations: options.ActivationsOption = options.Activations.AUTO,
    kv_bits: options.KVBitsOption = None,
    context: options.Context = None,
    window: options.Window = None,
    rope_theta: options.RopeTheta = None,
    adapter: options.Adapter = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Score a text: tokens, negative log-likelihood, perplexity, bits per byte.

    A text longer than the context is scored in segments, or with --stream in one pass in which every token sees all
    that the windows reach.
    """
    output = Output(as_json=as_json, quiet=quiet)
    if stream and stride is not None:
        raise InvalidInputError("--stride cuts the text into segments and --stream does not cut it: give one of them")
    check_readable(file)
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
            adapter=adapter,
            threads=threads,
        ),
        output,
    )
    begun = perf_counter()
    with progress(f"scoring {file.name}", output) as on_progress:
        n_expected = expected_tokens(file, llm.tokenizer) if output.shows_progress else 1
        score = llm.score(
            file,
            stream=stream,
            stride=stride,
            on_scored=lambda n_tokens, nll: on_progress(
                min(n_tokens, n_expected - 1), n_expected, f"perplexity {running_perplexity(n_tokens, nll)}"
            ),
        )
    for sentence in score.notes:
        output.note(sentence)
    elapsed_s = perf_counter() - begun
    perplexity = score.perplexity if math.isfinite(score.perplexity) else None
    memory_bytes = peak_memory_bytes(llm.model.device)
    if as_json:
        output.emit(
            {
                "tokens": score.n_tokens,
                "mean_nll": score.mean_nll,
                "perplexity": perplexity,
                "bits_per_byte": score.bits_per_byte,
                "total_nll": score.total_nll,
                "bytes": score.n_bytes,
                "elapsed_s": elapsed_s,
                "peak_memory_bytes": memory_bytes,
                "model": model,
            }
        )
        return
    output.rows(
        [
            ("tokens", f"{score.n_tokens}"),
            ("mean nll", f"{score.mean_nll:.6f} nats"),
            ("perplexity", "too large for a float" if perplexity is None else f"{perplexity:.6g}"),
            ("bits per byte", "unknown" if score.bits_per_byte is None else f"{score.bits_per_byte:.6f}"),
        ]
    )
    memory = "" if memory_bytes is None else f" · memory {size(memory_bytes)}"
    output.dim(f"{score.n_tokens / elapsed_s:.1f} tok/s · {elapsed_s:.1f} s{memory}")


def running_perplexity(n_tokens: int, nll: float) -> str:
    """The perplexity so far, in four digits.

    >>> running_perplexity(10, 10 * math.log(12.3456))
    '12.35'
    """
    return f"{math.exp(nll / n_tokens):.4g}" if nll / n_tokens < 700 else "huge"


def expected_tokens(file: Path, tokenizer: "Tokenizer | None") -> int:
    """About how many tokens the file has, judged by its beginning: good enough for a progress bar."""
    with file.open("rb") as opened:
        sample = opened.read(SAMPLE_BYTES)
    if tokenizer is None or not sample:
        return 1
    n_sample = len(tokenizer.encode(sample.decode("utf-8", errors="ignore")))
    return max(1, round(file.stat().st_size * n_sample / len(sample)))
