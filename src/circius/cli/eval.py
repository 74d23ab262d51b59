"""`circius eval`: a model on the paper's benchmarks."""

from pathlib import Path
from typing import Annotated

import typer

from circius.base.errors import InvalidInputError
from circius.cli import options
from circius.cli.evaluating import Asked, Endpoint, evaluate, list_tasks, show_prompts
from circius.cli.loading import ModelOptions, refuse_loading
from circius.cli.output import Output

NAME = "eval"
WHAT, SAMPLES, ENDPOINT = "What is measured", "Samples", "A model behind a server"


def command(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help=f"{options.MODEL_HELP[:-1]}, or a name at --endpoint.",
                       show_default=False)
    ] = None,
    suite: Annotated[
        list[str] | None,
        typer.Option("--suite", metavar="NAME", help="Tasks that belong together (see --list); repeatable.",
                     show_default="quick", rich_help_panel=WHAT)
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", metavar="NAME", help="A task (see --list); repeatable.", show_default="none",
                     rich_help_panel=WHAT)
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option("--text", metavar="F", help="Measure perplexity and bits per byte of this text (UTF-8).",
                     show_default="none", rich_help_panel=WHAT)
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, help="N items of each task, drawn by --seed.",
                     show_default="all; the suite's", rich_help_panel=WHAT)
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", help="Of the items drawn, and of all samples.", rich_help_panel=WHAT)
    ] = 0,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="FOLDER", help="The folder with the data sets.",
                     show_default="where `circius data eval` puts them", rich_help_panel=WHAT)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Where results are kept; a run that was stopped goes on there.",
                     show_default="runs/eval-MODEL", rich_help_panel=options.OUTPUT)
    ] = None,
    no_examples: Annotated[
        bool,
        typer.Option("--no-examples", metavar=options.FLAG,
                     help="Leave the first item of each task out of the report, so that it quotes no data set.",
                     rich_help_panel=options.OUTPUT)
    ] = False,
    samples: Annotated[
        int | None,
        typer.Option("--samples", metavar="N", min=0, help="Answers to draw for each item; 0: greedy ones alone.",
                     show_default="8 for gsm8k, 4 for math, else 0", rich_help_panel=SAMPLES)
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", metavar="T", help="Of the samples.", show_default="0.6, for programs 0.2",
                     rich_help_panel=SAMPLES)
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option("--top-p", metavar="P", help="Of the samples.", show_default="0.95", rich_help_panel=SAMPLES)
    ] = None,
    unsafe_no_sandbox: Annotated[
        bool,
        typer.Option("--unsafe-no-sandbox", metavar=options.FLAG,
                     help="Run the model's programs unconfined where there is no sandbox.", rich_help_panel=SAMPLES)
    ] = False,
    show: Annotated[
        bool,
        typer.Option("--show-prompts", metavar=options.FLAG,
                     help="Show what is asked about the first item of each task, with its tokens, and stop.",
                     rich_help_panel=WHAT)
    ] = False,
    list_all: Annotated[
        bool,
        typer.Option("--list", metavar=options.FLAG, help="List suites and tasks, and stop.", rich_help_panel=WHAT)
    ] = False,
    endpoint: Annotated[
        str | None,
        typer.Option("--endpoint", metavar="URL",
                     help="MODEL is behind this OpenAI-compatible server, such as http://127.0.0.1:8000/v1.",
                     show_default="none: in this process", rich_help_panel=ENDPOINT)
    ] = None,
    key_env: Annotated[
        str | None,
        typer.Option("--key-env", metavar="NAME", help="The environment variable that holds the server's API key.",
                     show_default="none", rich_help_panel=ENDPOINT)
    ] = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", metavar="N", min=1, help="Requests open at once.", rich_help_panel=ENDPOINT)
    ] = 8,
    max_streams: Annotated[
        int, typer.Option("--max-streams", metavar="N", min=1, help="Answers computed at once.",
                          rich_help_panel=options.LOADING)
    ] = 16,
    threads: options.Threads = None,
    dtype: options.DTypeOption = options.DType.AUTO,
    device: options.DeviceOption = "auto",
    activations: options.ActivationsOption = options.Activations.AUTO,
    kv_bits: options.KVBitsOption = None,
    deterministic: options.Deterministic = False,
    context: options.Context = None,
    window: options.Window = None,
    rope_theta: options.RopeTheta = None,
    adapter: options.Adapter = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:  # fmt: skip
    """Measure a model on the paper's benchmarks, and show its figures beside the published ones.

    Every item's prompt, tokens, scores and answer become a line of a file in --out; a run that was stopped, however
    roughly, goes on where it was when the same command is given again, and comes to the same figures.
    `circius data eval` fetches the data sets.
    """
    output = Output(as_json=as_json, quiet=quiet)
    if list_all:
        list_tasks(output)
        return
    if model is None:
        raise InvalidInputError("name a MODEL, or ask for --list")
    if endpoint is None and key_env is not None:
        raise InvalidInputError("--key-env is for an --endpoint, and none was given")
    asked = Asked(
        suites=tuple(suite or ()), tasks=tuple(task or ()), text=text, limit=limit, seed=seed, data=data, out=out,
        samples=samples, temperature=temperature, top_p=top_p, unsafe_no_sandbox=unsafe_no_sandbox,
        examples=not no_examples,
    )  # fmt: skip
    served = None if endpoint is None else Endpoint(url=endpoint, key_env=key_env, concurrency=concurrency)
    loading = ModelOptions(
        model=model, dtype=dtype, device=device, activations=activations, kv_bits=kv_bits, deterministic=deterministic,
        context=context, window=window, rope_theta=rope_theta, threads=threads, adapter=adapter,
    )  # fmt: skip
    if served is not None:
        refuse_loading(loading)
    if show:
        show_prompts(asked, loading, served, output)
    else:
        evaluate(asked, loading, served, output, max_streams=max_streams)
