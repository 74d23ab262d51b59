"""`circius batch`: a file of requests, answered."""

from pathlib import Path
from typing import Annotated

import typer

from circius.base.errors import CirciusError
from circius.cli import options
from circius.cli.loading import ModelOptions, open_llm
from circius.cli.output import Output
from circius.cli.progress import progress
from circius.cli.serve import name_of

NAME = "batch"


def command(
    model: options.ModelArgument,
    source: Annotated[Path, typer.Argument(metavar="IN.jsonl", help="Requests in OpenAI's batch format.", exists=True,
                                           dir_okay=False, show_default=False)],
    target: Annotated[Path, typer.Argument(metavar="OUT.jsonl", help="Where the answers go.", show_default=False)],
    served_model_name: Annotated[
        list[str] | None,
        typer.Option("--served-model-name", metavar="NAME", help="What requests call the model; repeatable.",
                     show_default="the model's own"),
    ] = None,
    max_streams: Annotated[
        int, typer.Option("--max-streams", metavar="N", min=1, help="Answers computed at once.")
    ] = 32,
    chunk_size: Annotated[
        int, typer.Option("--chunk-size", metavar="N", min=1, help="Tokens of prompts read in one step.")
    ] = 512,
    max_memory: Annotated[
        float | None,
        typer.Option("--max-memory", metavar="GIB", min=0.01, help="For weights, cache and all.",
                     show_default="nine tenths of what is free"),
    ] = None,
    force: options.Force = False,
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
    template: options.TemplateOption = options.Template.AUTO,
    injection: options.InjectionOption = options.Injection.ESCAPE,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:  # fmt: skip
    """Answer a file of requests, as many at once as fit.

    Lines are OpenAI's: custom_id, method, url (/v1/chat/completions or /v1/completions) and body. Answers stand in the
    order of the requests; one that cannot be answered has its error there, and the others go on. A run that was stopped
    goes on where it was when it is started again. Needs the extra `serve`:
    `pip install -e '.[serve]'`.
    """
    try:
        from circius.serve.batch_file import run_batch
    except ModuleNotFoundError as error:
        raise CirciusError(
            f"batch files need {error.name}: install circius with its extra, pip install -e '.[serve]' in its folder"
        ) from error
    output = Output(as_json=as_json, quiet=quiet)
    llm = open_llm(
        ModelOptions(
            model=model,
            dtype=dtype,
            device=device,
            activations=activations,
            kv_bits=kv_bits,
            deterministic=deterministic,
            context=context,
            window=window,
            rope_theta=rope_theta,
            adapter=adapter,
            threads=threads,
            template=template,
            injection=injection,
        ),
        output,
    )
    from circius.engine.engine import Engine
    from circius.engine.engine_limits import EngineLimits
    from circius.engine.memory_plan import plan_memory

    plan = plan_memory(
        llm.model,
        context=llm.context,
        max_streams=max_streams,
        chunk_size=chunk_size,
        max_bytes=None if max_memory is None else int(max_memory * 2**30),
    )
    for line in plan.lines():
        output.note(line)
    output.show_notes()
    limits = EngineLimits(
        cache_tokens=plan.cache_tokens,
        max_streams=max_streams,
        chunk_size=chunk_size,
        mixed_chunk_size=chunk_size,  # nobody watches
        speculate=llm.limits.speculate,
    )
    engine = Engine(llm.model, limits=limits, tokenizer=llm.tokenizer)
    names = tuple(served_model_name or [name_of(model)])
    with progress(source.name, output) as on_progress:
        counts = run_batch(
            llm, engine, source, target, names=names, force=force, on_progress=lambda done, n: on_progress(done, n)
        )
    if as_json:
        output.emit({**counts, "output": str(target)})
    else:
        output.dim(
            f"{counts['answered']} answered, {counts['failed']} failed, {counts['taken_over']} taken over: {target}"
        )
    if counts["failed"]:
        raise typer.Exit(1)
