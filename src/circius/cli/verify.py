"""`circius verify`: is this checkpoint what it says it is, and does it compute what it should?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circius.base.errors import InvalidInputError
from circius.cli import options
from circius.cli.loading import ModelOptions, open_llm
from circius.cli.output import Output
from circius.cli.progress import progress
from circius.cli.texts import read_text_file

if TYPE_CHECKING:
    from circius import LLM
    from circius.evals.verify.compare import Scored
    from circius.evals.verify.perplexity import PieceScore
    from circius.evals.verify.result import Result

NAME = "verify"
FACTS = "Facts"


def command(
    model: options.ModelArgument,
    facts: Annotated[
        Path | None,
        typer.Option("--facts", metavar="F", help="Facts of other checkpoints (JSON), instead of the known ones.",
                     show_default="those of Mistral 7B", rich_help_panel=FACTS),
    ] = None,
    wikitext: Annotated[
        Path | None,
        typer.Option("--wikitext", metavar="F", help="wiki.test.raw, for the perplexity by llama.cpp's protocol.",
                     show_default="skipped", rich_help_panel=FACTS),
    ] = None,
    pieces: Annotated[
        int | None,
        typer.Option("--pieces", metavar="N", min=1, help="Score only N pieces of it: a figure, and no comparison.",
                     show_default="all", rich_help_panel=FACTS),
    ] = None,
    threads: options.Threads = None,
    dtype: options.DTypeOption = options.DType.AUTO,
    device: options.DeviceOption = "auto",
    activations: options.ActivationsOption = options.Activations.AUTO,
    kv_bits: options.KVBitsOption = None,
    deterministic: options.Deterministic = False,
    context: options.Context = None,
    window: options.Window = None,
    rope_theta: options.RopeTheta = None,
    template: options.TemplateOption = options.Template.AUTO,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:  # fmt: skip
    """Check a checkpoint: against what it is known to say, and against laws that hold for every model.

    A Mistral 7B is recognised by its shape and by what it says, and held against logits, greedy answers, a prompt
    longer than the window and perplexities that other projects have published. For every model: chunks, cache and
    packing change no log-probability, no key leaks past the window, all numbers are finite, texts come back from the
    tokenizer, no message forges a turn. Exits with 1 if anything fails.
    """
    output = Output(as_json=as_json, quiet=quiet)
    if pieces is not None and wikitext is None:
        raise InvalidInputError("--pieces are of a text: give it with --wikitext")
    from circius.evals.verify.facts import known_checkpoints

    checkpoints = known_checkpoints(facts)
    text = None if wikitext is None else read_text_file(wikitext)
    llm = open_llm(
        ModelOptions(
            model=model, dtype=dtype, device=device, activations=activations, kv_bits=kv_bits,
            deterministic=deterministic, context=context, window=window, rope_theta=rope_theta, threads=threads,
            template=template,
        ),
        output,
    )  # fmt: skip
    if text is not None and llm.tokenizer is None:
        raise InvalidInputError("--wikitext needs a tokenizer, and the checkpoint has none: leave it out")
    from circius.evals.verify.verify import verify

    scores: list[PieceScore] = []
    verified = verify(
        llm,
        checkpoints,
        perplexity=_perplexity(llm, text, pieces, scores, output),
        on_result=(lambda result: None) if as_json else (lambda result: output.line(shown(result))),
    )
    if text is not None and not scores:  # no fact has asked for it
        _perplexity(llm, text, pieces, scores, output)(512)
    if as_json:
        output.emit(
            {
                "model": model,
                "checkpoint": verified.recognised.known.name if verified.recognised.known else None,
                "recognised": verified.recognised.words,
                "failed": verified.n_failed,
                "checks": [fields(result) for result in verified.results],
                "perplexities": [vars(score) for score in scores],
            }
        )
    else:
        for score in scores:
            output.line(
                f"perplexity {score.perplexity:.4f}: {score.n_tokens} tokens, {score.n_pieces} of {score.n_all} pieces"
            )
        output.line(f"checkpoint: {verified.recognised.words}")
        output.line(f"{verified.n_failed} of {len(verified.results)} checks failed")
    if verified.n_failed:
        raise typer.Exit(1)


def shown(result: "Result") -> str:
    """One line for a check."""
    numbers = ""
    if result.found is not None and result.allowed is not None:
        numbers = f"{result.found:.3g} (at most {result.allowed:.3g}): "
    return f"{result.status:<7}  {result.name:<24}  {numbers}{result.detail}"


def fields(result: "Result") -> dict[str, Any]:
    """The same for machines; what is no number there is none."""
    found = result.found if result.found is not None and result.found == result.found else None
    return {
        "name": result.name,
        "status": result.status,
        "found": None if found in (float("inf"), float("-inf")) else found,
        "allowed": result.allowed,
        "detail": result.detail,
    }


def _perplexity(
    llm: "LLM", text: str | None, pieces: int | None, scores: "list[PieceScore]", output: Output
) -> "Scored":
    """What scores the user's text, and keeps what came of it; a part of the text is no perplexity to compare."""

    def score(context: int) -> float | None:
        if text is None:
            return None
        from circius.evals.verify.perplexity import half_context_perplexity

        with progress("scoring", output) as on_progress:
            found = half_context_perplexity(
                llm, text, context=context, n_pieces=pieces, on_done=lambda done, total: on_progress(done, total)
            )
        scores.append(found)
        return found.perplexity if found.n_pieces == found.n_all else None

    return score
