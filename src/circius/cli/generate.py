"""`circius generate`: one prompt, one answer."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circius.base.errors import ContextOverflowError, InvalidInputError
from circius.cli import answer, options, sampling_options
from circius.cli.failure import EXIT_INTERRUPTED
from circius.cli.loading import ModelOptions, open_llm
from circius.cli.output import Output
from circius.cli.texts import read_prompt

if TYPE_CHECKING:
    from circius import LLM, RequestOutput, SamplingParams
    from circius.engine.generate import IsCancelled

NAME = "generate"
DEFAULT_MAX_TOKENS = 256


def command(
    model: options.ModelArgument,
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help="The text; `-` or nothing reads a pipe.", show_default=False),
    ] = None,
    file: options.TextFile = None,
    as_chat: Annotated[
        bool | None,
        typer.Option(
            "--chat/--raw",
            metavar=options.FLAG,
            help="PROMPT is a user message, or a text to continue; by default a message if the model ships a template.",
            show_default=False,
        ),
    ] = None,
    system: options.System = None,
    guard: options.Guard = False,
    max_tokens: sampling_options.MaxTokens = None,
    temperature: sampling_options.Temperature = 0.0,
    top_p: sampling_options.TopP = 1.0,
    top_k: sampling_options.TopK = 0,
    min_p: sampling_options.MinP = 0.0,
    repetition_penalty: sampling_options.RepetitionPenalty = 1.0,
    presence_penalty: sampling_options.PresencePenalty = 0.0,
    frequency_penalty: sampling_options.FrequencyPenalty = 0.0,
    logit_bias: sampling_options.LogitBias = None,
    seed: sampling_options.Seed = None,
    stop: sampling_options.Stop = None,
    n: Annotated[
        int,
        typer.Option("-n", metavar="N", help="Answers to the one prompt.", rich_help_panel=sampling_options.SAMPLING),
    ] = 1,
    logprobs: Annotated[
        int | None,
        typer.Option(
            "--logprobs",
            metavar="N",
            help="With --json: log-probabilities of each token and the N likeliest.",
            show_default=False,
            rich_help_panel=sampling_options.SAMPLING,
        ),
    ] = None,
    prompt_logprobs: Annotated[
        int | None,
        typer.Option(
            "--prompt-logprobs",
            metavar="N",
            help="With --json: the same for the prompt's tokens.",
            show_default=False,
            rich_help_panel=sampling_options.SAMPLING,
        ),
    ] = None,
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
    adapter: options.Adapter = None,
    template: options.TemplateOption = options.Template.AUTO,
    injection: options.InjectionOption = options.Injection.ESCAPE,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Answer a message, or continue a text.

    A model that comes with a chat template answers PROMPT as a user's message; any other continues it. --chat and
    --raw say which.

    The text streams to stdout. Without --temperature the likeliest token is taken each time, so that the same command
    gives the same answer. One line break at the end of a file or a pipe is dropped. Ctrl-C stops the answer and
    prints what there is.
    """
    output = Output(as_json=as_json, quiet=quiet)
    asks_for_chat = system is not None or guard or template is not options.Template.AUTO
    if as_chat is False and asks_for_chat:
        raise InvalidInputError("--system, --guard and --template are for a chat: leave them out, or --raw")
    if not as_json and (logprobs is not None or prompt_logprobs is not None):
        raise InvalidInputError("--logprobs and --prompt-logprobs need --json")
    from circius.engine.params import SamplingParams

    params = SamplingParams(
        n=n,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        logit_bias=sampling_options.parse_logit_bias(logit_bias),
        seed=seed,
        stop=stop,
        max_tokens=DEFAULT_MAX_TOKENS if max_tokens is None else max_tokens,
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
    )
    text = read_prompt(prompt, file)
    llm = open_llm(
        ModelOptions(
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
            adapter=adapter,
            threads=threads,
            template=template,
            injection=injection,
        ),
        output,
    )
    if as_chat is None:
        as_chat = asks_for_chat or takes_messages(llm, output)
    conversation = conversation_of(text, system) if as_chat else None
    _generate(llm, conversation or text, params, output, model=model, guard=guard, may_shorten=max_tokens is None)


def takes_messages(llm: "LLM", output: Output) -> bool:
    """Whether a prompt is a user's message to this model, because it came with a chat template; a note says so."""
    if llm.chat_template is None or not llm.chat_template.is_shipped:
        return False
    output.note("the model has a chat template, so the prompt is a message to it; --raw continues it as plain text")
    return True


def conversation_of(text: str, system: str | None) -> list[dict[str, str]]:
    """A conversation of one user message, after the system prompt if there is one."""
    opening = [] if system is None else [{"role": "system", "content": system}]
    return [*opening, {"role": "user", "content": text}]


def _generate(
    llm: "LLM",
    asked: str | list[dict[str, str]],
    params: "SamplingParams",
    output: Output,
    *,
    model: str,
    guard: bool,
    may_shorten: bool,
) -> None:
    """Runs the request and shows its result; exits with 130 if Ctrl-C stopped it."""
    is_streamed = not output.as_json and params.n == 1
    streamed = answer.Streamed(output, is_shown=is_streamed)
    with answer.stopped_by_ctrl_c() as is_cancelled, streamed:
        try:
            result = _run(llm, asked, params, streamed, is_cancelled, guard=guard)
        except ContextOverflowError:
            if not may_shorten:
                raise
            # The default length does not fit: let the answer fill what the context leaves, if it leaves anything.
            result = _run(llm, asked, replace(params, max_tokens=None), streamed, is_cancelled, guard=guard)
    memory = answer.Memory(
        cache_bytes=answer.held_cache_bytes(llm.model, result),
        peak_bytes=answer.peak_memory_bytes(llm.model.device),
    )
    if output.as_json:
        output.emit({**answer.fields(result, memory), "model": model})
    else:
        if is_streamed:
            streamed.end(result.outputs[0].text)
        else:
            _show_all(result, output)
        output.dim(answer.statistics(result, memory))
    if not result.finished:
        raise typer.Exit(EXIT_INTERRUPTED)


def _run(
    llm: "LLM",
    asked: str | list[dict[str, str]],
    params: "SamplingParams",
    streamed: answer.Streamed,
    is_cancelled: "IsCancelled",
    *,
    guard: bool,
) -> "RequestOutput":
    watched: dict[str, Any] = {"on_token": streamed.take, "on_prefill": streamed.read, "is_cancelled": is_cancelled}
    if isinstance(asked, str):
        return llm.generate(asked, params, **watched)[0]
    return llm.chat(asked, params, guard=guard, **watched)[0]


def _show_all(result: "RequestOutput", output: Output) -> None:
    for one in result.outputs:
        output.line(f"--- {one.index + 1} of {len(result.outputs)} ---")
        output.line(one.text)
