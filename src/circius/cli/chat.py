"""`circius chat`: a conversation, at a terminal or scripted through a pipe."""

import sys
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circius.base.errors import CirciusError, ContextOverflowError, TemplateError
from circius.cli import answer, failure, options, sampling_options
from circius.cli.chat_commands import COMMANDS, ChatState, run_command
from circius.cli.chat_input import PipeReader, TerminalReader, TurnReader
from circius.cli.loading import DEMO, ModelOptions, open_llm
from circius.cli.output import Output

if TYPE_CHECKING:
    from circius import SamplingParams
    from circius.text import Message

NAME = "chat"
DEFAULT_MAX_TOKENS = 512


def command(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help=options.MODEL_HELP, show_default=DEMO)] = None,
    system: options.System = None,
    guard: options.Guard = False,
    max_tokens: sampling_options.MaxTokens = None,
    temperature: sampling_options.Temperature = 0.3,
    top_p: sampling_options.TopP = 0.9,
    top_k: sampling_options.TopK = 0,
    min_p: sampling_options.MinP = 0.0,
    repetition_penalty: sampling_options.RepetitionPenalty = 1.0,
    presence_penalty: sampling_options.PresencePenalty = 0.0,
    frequency_penalty: sampling_options.FrequencyPenalty = 0.0,
    logit_bias: sampling_options.LogitBias = None,
    seed: sampling_options.Seed = None,
    stop: sampling_options.Stop = None,
    threads: options.Threads = None,
    dtype: options.DTypeOption = options.DType.AUTO,
    device: options.DeviceOption = "auto",
    activations: options.ActivationsOption = options.Activations.AUTO,
    kv_bits: options.KVBitsOption = None,
    speculate: options.Speculate = None,
    context: options.Context = None,
    window: options.Window = None,
    rope_theta: options.RopeTheta = None,
    adapter: options.Adapter = None,
    template: options.TemplateOption = options.Template.AUTO,
    injection: options.InjectionOption = options.Injection.ESCAPE,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Talk with a model.

    Each turn computes only what the turns before it have not: the cache stays. /help lists the commands (/system
    /guard /save /load /reset /retry /stats /exit). Enter sends, Esc-Enter breaks the line, a block of lines can stand
    between triple quotes. Ctrl-C stops the answer, Ctrl-D ends the chat.

    When stdin is a pipe, every line is a turn, and the first error ends the chat. With --json each turn prints one
    object.
    """
    output = Output(as_json=as_json, quiet=quiet)
    from circius.engine.params import SamplingParams

    params = SamplingParams(
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
    )
    if model is None:
        _note_demo(output)
    loading = ModelOptions(
        model=model or DEMO,
        dtype=dtype,
        device=device,
        activations=activations,
        kv_bits=kv_bits,
        speculate=speculate,
        context=context,
        window=window,
        rope_theta=rope_theta,
        adapter=adapter,
        threads=threads,
        template=template,
        injection=injection,
    )
    state = _begin(loading, system, output, guard=guard)
    _talk(state, params, may_shorten=max_tokens is None)


def _note_demo(output: Output) -> None:
    from circius.weights.aliases import ALIASES

    output.note(f"no model named: taking {DEMO} ({ALIASES[DEMO].about})")


def _begin(loading: ModelOptions, system: str | None, output: Output, *, guard: bool) -> ChatState:
    llm = open_llm(loading, output)
    if llm.chat_template is None:
        raise TemplateError(
            f"{loading.model} has no chat template: use `circius generate`, or name a template with --template"
        )
    from circius import ChatSession
    from circius.text import Message

    opening = [] if system is None else [Message("system", system)]
    return ChatState(
        session=ChatSession(llm, opening, guard=guard),
        llm=llm,
        model=loading.model,
        output=output,
        is_terminal=sys.stdin.isatty() and sys.stdout.isatty() and not output.as_json,
    )


def _reader(state: ChatState) -> TurnReader:
    if not state.is_terminal:
        return PipeReader()
    history = _history_file(state.output)
    state.output.dim(f"{state.model} is ready; /help lists the commands, Ctrl-D leaves")
    return TerminalReader(history, list(COMMANDS))


def _history_file(output: Output) -> Path | None:
    """The file for what is typed, which only its owner can read; None, with a word about it, where none can be kept."""
    from circius.weights.home import circius_home

    path = circius_home() / "chat_history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError as error:
        output.dim(f"what is typed is not kept for the next chat: {path}: {error.strerror}")
        return None
    return path


def _talk(state: ChatState, params: "SamplingParams", *, may_shorten: bool) -> None:
    """Turn after turn. At a terminal an error ends the turn; in a script it ends the chat."""
    reader = _reader(state)
    while not state.is_over and (text := reader.read()) is not None:
        try:
            _turn(state, text, params, may_shorten=may_shorten)
        except CirciusError as error:
            if not state.is_terminal:
                raise
            failure.report(error)
        if state.last is not None and not state.last.finished and not state.is_terminal:
            raise KeyboardInterrupt


def _turn(state: ChatState, text: str, params: "SamplingParams", *, may_shorten: bool) -> None:
    asked: str | list[Message] = text
    if text.startswith("/") and not text.startswith("//"):
        run_command(state, text)
        if state.ask_again is None:
            return
        asked, state.ask_again = state.ask_again, None
    elif text.startswith("//"):
        asked = text[1:]
    elif not text.strip():
        return
    _answer(state, asked, params, may_shorten=may_shorten)


def _answer(state: ChatState, asked: "str | list[Message]", params: "SamplingParams", *, may_shorten: bool) -> None:
    output, session = state.output, state.session
    streamed = answer.Streamed(output, is_shown=not output.as_json)
    echo = answer.without_echo() if state.is_terminal else nullcontext()
    with echo, answer.stopped_by_ctrl_c() as is_cancelled, streamed:
        ask = partial(session.ask, on_token=streamed.take, on_prefill=streamed.read, is_cancelled=is_cancelled)
        try:
            result = ask(asked, params)
        except ContextOverflowError:
            if not may_shorten:
                raise
            # The default length does not fit: let the answer fill what the context leaves, if it leaves anything.
            result = ask(asked, replace(params, max_tokens=None))
    state.last, state.n_turns = result, state.n_turns + 1
    memory = answer.Memory(
        cache_bytes=session.n_cache_bytes, peak_bytes=answer.peak_memory_bytes(state.llm.model.device)
    )
    if output.as_json:
        output.emit({**answer.fields(result, memory), "model": state.model})
        return
    streamed.end(result.outputs[0].text)
    output.dim(answer.statistics(result, memory))
    if state.is_terminal:
        output.line()
