"""`circius serve`: a model behind OpenAI's protocol."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circius.base.errors import CirciusError, InvalidInputError
from circius.cli import options
from circius.cli.loading import ModelOptions, find_model, open_llm
from circius.cli.output import Output

if TYPE_CHECKING:
    from circius import LLM
    from circius.engine.engine import Engine

NAME = "serve"
KEYS_VARIABLE = "CIRCIUS_API_KEYS"
ADMIN_KEYS_VARIABLE = "CIRCIUS_ADMIN_KEYS"
LISTENING, WORK, ADAPTERS, MODERATION = "Listening", "Work at once", "Adapters", "Moderation"


def command(
    model: options.ModelArgument,
    host: Annotated[str, typer.Option("--host", metavar="H", help="Address to listen on.", rich_help_panel=LISTENING)]
    = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="N", min=0, max=65535, help="Port; 0: any free one.",
                          rich_help_panel=LISTENING)
    ] = 8000,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            "--api-key-file", metavar="F",
            help=f"A file with one API key a line; {KEYS_VARIABLE} may hold some too, with commas between.",
            show_default="none", rich_help_panel=LISTENING,
        ),
    ] = None,
    no_auth: Annotated[
        bool,
        typer.Option("--no-auth", metavar=options.FLAG, help="Listen beyond this machine without any key.",
                     rich_help_panel=LISTENING),
    ] = False,
    served_model_name: Annotated[
        list[str] | None,
        typer.Option("--served-model-name", metavar="NAME", help="What requests call the model; repeatable.",
                     show_default="the model's own", rich_help_panel=LISTENING),
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option("--adapter", metavar="NAME=FOLDER",
                     help="A LoRA adapter that requests choose by NAME; repeatable.",
                     show_default="none", rich_help_panel=ADAPTERS),
    ] = None,
    adapter_folder: Annotated[
        Path | None,
        typer.Option("--adapter-folder", metavar="FOLDER",
                     help="Whose subfolders may be loaded as adapters while the server runs.",
                     show_default="none", rich_help_panel=ADAPTERS),
    ] = None,
    max_adapters: Annotated[
        int, typer.Option("--max-adapters", metavar="N", min=1, help="Adapters at once.", rich_help_panel=ADAPTERS)
    ] = 16,
    admin_key_file: Annotated[
        Path | None,
        typer.Option(
            "--admin-key-file", metavar="F",
            help=f"A file with the keys of those who may load adapters, one a line; {ADMIN_KEYS_VARIABLE} likewise.",
            show_default="none", rich_help_panel=ADAPTERS,
        ),
    ] = None,
    moderate_prompts: Annotated[
        Path | None,
        typer.Option("--moderate-prompts", metavar="POLICY.json",
                     help="Let the model judge every prompt first, and refuse or mark it by this policy.",
                     show_default="none", rich_help_panel=MODERATION),
    ] = None,
    moderate_answers: Annotated[
        Path | None,
        typer.Option("--moderate-answers", metavar="POLICY.json",
                     help="The same for answers, which are held back until they are whole and judged.",
                     show_default="none", rich_help_panel=MODERATION),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option("--cors-origin", metavar="URL", help="Web pages that may ask this server; repeatable.",
                     show_default="none", rich_help_panel=LISTENING),
    ] = None,
    drain: Annotated[
        float, typer.Option("--drain", metavar="S", min=0, help="Seconds that open requests get when it stops.",
                            rich_help_panel=LISTENING)
    ] = 30,
    max_body: Annotated[
        int, typer.Option("--max-body", metavar="BYTES", min=1024, help="Of one request.", rich_help_panel=LISTENING)
    ] = 4 << 20,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", min=1, help="The longest that one request may take.",
                            rich_help_panel=LISTENING)
    ] = 3600,
    max_streams: Annotated[
        int, typer.Option("--max-streams", metavar="N", min=1, help="Answers computed at once.", rich_help_panel=WORK)
    ] = 16,
    max_open: Annotated[
        int, typer.Option("--max-open", metavar="N", min=1, help="Requests running or waiting; more get 503.",
                          rich_help_panel=WORK)
    ] = 256,
    chunk_size: Annotated[
        int, typer.Option("--chunk-size", metavar="N", min=1, help="Tokens of prompts read in one step.",
                          rich_help_panel=WORK)
    ] = 512,
    mixed_chunk_size: Annotated[
        int, typer.Option("--mixed-chunk-size", metavar="N", min=1,
                          help="The same while answers are being made, which wait for it.", rich_help_panel=WORK)
    ] = 64,
    max_memory: Annotated[
        float | None,
        typer.Option("--max-memory", metavar="GIB", help="For weights, cache and all.",
                     show_default="nine tenths of what is free", rich_help_panel=WORK),
    ] = None,
    cache_tokens: Annotated[
        int | None,
        typer.Option("--cache-tokens", metavar="N", help="Places in the cache, for all requests together.",
                     show_default="twice what full streams take", rich_help_panel=WORK),
    ] = None,
    no_prefix_cache: Annotated[
        bool,
        typer.Option("--no-prefix-cache", metavar=options.FLAG, help="Compute every prompt from its beginning.",
                     rich_help_panel=WORK),
    ] = False,
    threads: options.Threads = None,
    dtype: options.DTypeOption = options.DType.AUTO,
    device: options.DeviceOption = "auto",
    activations: options.ActivationsOption = options.Activations.AUTO,
    kv_bits: options.KVBitsOption = None,
    speculate: options.Speculate = None,
    deterministic: options.Deterministic = False,
    context: options.Context = None,
    window: options.Window = None,
    rope_theta: options.RopeTheta = None,
    template: options.TemplateOption = options.Template.AUTO,
    injection: options.InjectionOption = options.Injection.ESCAPE,
    quiet: options.Quiet = False,
) -> None:  # fmt: skip
    """Serve a model over HTTP, in OpenAI's protocol, to many clients at once.

    Completions and chats with streaming, log-probabilities and seeds; the window and its cache as in the paper, prompts
    that begin alike computed once, a page to chat with at /, metrics at /metrics, the protocol's description at /docs.
    SIGTERM lets open requests end. Needs the extra `serve`: `pip install -e '.[serve]'`.
    """
    try:
        from circius.serve.config import ServeConfig
        from circius.serve.run import run
    except ModuleNotFoundError as error:
        raise CirciusError(
            f"serving needs {error.name}: install circius with its extra, pip install -e '.[serve]' in its folder"
        ) from error

    from circius.moderate.policy import read_policy

    output = Output(as_json=False, quiet=quiet)
    names = tuple(served_model_name or [name_of(model)])
    config = ServeConfig(
        host=host,
        port=port,
        names=names,
        keys=read_keys(api_key_file, os.environ.get(KEYS_VARIABLE, "")),
        is_open=no_auth,
        max_open=max_open,
        max_body_bytes=max_body,
        timeout_s=timeout,
        drain_s=drain,
        origins=tuple(cors_origin or ()),
        adapters=read_adapters(adapter or []),
        adapter_folder=adapter_folder,
        max_adapters=max_adapters,
        admin_keys=read_keys(admin_key_file, os.environ.get(ADMIN_KEYS_VARIABLE, "")),
        prompt_policy=read_policy(moderate_prompts) if moderate_prompts else None,
        answer_policy=read_policy(moderate_answers) if moderate_answers else None,
    )
    if max_memory is not None and max_memory <= 0:
        raise InvalidInputError(f"--max-memory must be above 0 GiB, got {max_memory:g}")
    find_model(model, output)  # a wrong name is told before the server listens
    model_options = ModelOptions(
        model=model,
        dtype=dtype,
        device=device,
        activations=activations,
        kv_bits=kv_bits,
        speculate=speculate,
        deterministic=deterministic,
        context=context,
        window=window,
        rope_theta=rope_theta,
        threads=threads,
        template=template,
        injection=injection,
    )

    def load() -> "tuple[LLM, Engine]":
        from circius.engine.engine import Engine
        from circius.engine.engine_limits import EngineLimits
        from circius.engine.memory_plan import plan_memory

        llm = open_llm(model_options, output)
        plan = plan_memory(
            llm.model,
            context=llm.context,
            max_streams=max_streams,
            chunk_size=max(chunk_size, mixed_chunk_size),
            max_bytes=None if max_memory is None else int(max_memory * 2**30),
            cache_tokens=cache_tokens,
        )
        for line in plan.lines():
            output.note(line)
        limits = EngineLimits(
            cache_tokens=plan.cache_tokens,
            max_streams=max_streams,
            chunk_size=chunk_size,
            mixed_chunk_size=mixed_chunk_size,
            speculate=llm.limits.speculate,
            shares_prefixes=not no_prefix_cache,
        )
        engine = Engine(llm.model, limits=limits, tokenizer=llm.tokenizer)
        output.dim(f"ready: {', '.join(names)}")
        return llm, engine

    raise typer.Exit(run(config, load))


def read_keys(file: Path | None, variable: str) -> tuple[str, ...]:
    """The API keys of a file, one a line, and of the environment; lines that begin with # are comments.

    Raises:
        InvalidInputError: the file is there and has no key.
    """
    keys = [key.strip() for key in variable.split(",") if key.strip()]
    if file is not None:
        try:
            lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        except UnicodeDecodeError as error:
            raise InvalidInputError(f"{file} is not UTF-8 text") from error
        own = [line for line in lines if line and not line.startswith("#")]
        if not own:
            raise InvalidInputError(f"{file} has no API key: write one a line")
        keys += own
    return tuple(dict.fromkeys(keys))


def read_adapters(given: Sequence[str]) -> tuple[tuple[str, Path], ...]:
    """Names and folders of adapters.

    Raises:
        InvalidInputError: one is not written as NAME=FOLDER.
        CheckpointError: there is no adapter.
    """
    from circius.weights.adapter import check_adapter

    found = []
    for each in given:
        name, sign, folder = each.partition("=")
        if not (name and sign and folder):
            raise InvalidInputError(f"--adapter takes NAME=FOLDER, got {each!r}")
        check_adapter(Path(folder))
        found.append((name, Path(folder)))
    return tuple(found)


def name_of(model: str) -> str:
    """What a model is called when nobody says: the last part of a path, or the whole name of a known one."""
    path = Path(model)
    return path.resolve().name.removesuffix(".gguf") if path.exists() else model
