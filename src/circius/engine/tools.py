"""The tools of a request: which may be called, how that is enforced, and how the calls are read out of the answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from circius.base.errors import CirciusError, ParamsError
from circius.engine.grammars import Grammars
from circius.engine.params import SamplingParams
from circius.engine.request import Request
from circius.engine.structured import Constraint
from circius.engine.tool_constraint import AllBut, LazyCalls
from circius.engine.tool_grammar import calls_grammar
from circius.text import Tokenizer
from circius.text.tool_form import CallForm
from circius.text.tool_reader import CallReader
from circius.text.tools import Tool, as_tools

ToolChoice = str | Mapping[str, Any]
"""`auto`, `none`, `required`, or `{"type": "function", "function": {"name": ...}}`."""
Mode = Literal["auto", "none", "required"]
_MODES: dict[str, Mode] = {"auto": "auto", "none": "none", "required": "required"}


@dataclass(frozen=True, kw_only=True)
class ToolUse:
    """Tools, and what the model is to do with them.

    mode: `auto` lets it choose, `none` forbids calls, `required` wants one at least. name: the only function that it
    may call. parallel: whether one answer may have several calls.
    """

    tools: tuple[Tool, ...]
    mode: Mode = "auto"
    name: str | None = None
    parallel: bool = True

    @property
    def shown(self) -> tuple[Tool, ...]:
        """The tools that the prompt tells of."""
        return () if self.mode == "none" else self.tools

    @property
    def callable(self) -> tuple[Tool, ...]:
        """The tools that the answer may call."""
        return tuple(tool for tool in self.shown if self.name in (None, tool.name))


def tool_use(
    tools: Sequence[Tool | Mapping[str, Any]] | None, tool_choice: ToolChoice | None, *, parallel: bool
) -> ToolUse | None:
    """The checked tools; None where there are none.

    Raises:
        TemplateError: a tool that is none.
        ParamsError: a choice that is none, or that names no tool.
    """
    if not isinstance(parallel, bool):
        raise ParamsError(f"parallel_tool_calls must be True or False, got {parallel!r:.80}")
    given = as_tools(tools)
    mode, name = _choice(tool_choice)
    if not given:
        if mode == "required":
            raise ParamsError(f"tool_choice {tool_choice!r} needs tools: give some, or leave it out")
        return None
    if name is not None and name not in (tool.name for tool in given):
        raise ParamsError(
            f"tool_choice names the function {name!r}, and the tools are {', '.join(tool.name for tool in given)}"
        )
    return ToolUse(tools=given, mode=mode, name=name, parallel=parallel)


def _choice(choice: ToolChoice | None) -> tuple[Mode, str | None]:
    if choice is None:
        return "auto", None
    if isinstance(choice, str) and choice in _MODES:
        return _MODES[choice], None
    function = choice.get("function") if isinstance(choice, Mapping) and choice.get("type") == "function" else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise ParamsError(
            "tool_choice must be 'auto', 'none', 'required' or "
            f'{{"type": "function", "function": {{"name": ...}}}}, got {choice!r:.80}'
        )
    return "required", name


def check_params(use: ToolUse, params: SamplingParams) -> None:
    """Refuses parameters that contradict the tools.

    Raises:
        ParamsError: with what to do.
    """
    if use.mode == "none":
        return
    if params.ignore_eos or params.min_tokens:
        raise ParamsError("tools: an answer ends where its calls end: leave out ignore_eos and min_tokens")
    form = params.structured_outputs
    if form is None:
        return
    if use.mode == "required":
        raise ParamsError(
            "tool_choice wants a call, which leaves no text that could have the form that response_format or "
            "structured_outputs asks for: leave out one of them"
        )
    if form.json is None and not form.json_object:
        raise ParamsError("tools go together with JSON only: structured_outputs may be json or json_object")


def with_tools(
    request: Request,
    use: ToolUse,
    form: CallForm,
    *,
    tokenizer: Tokenizer,
    vocab_size: int,
    forms: Callable[[], Grammars],
) -> Request:
    """The request with what holds its answer to the form of calls, and what reads them.

    forms: gives the model's grammars; it raises `CirciusError` where there can be none.

    Raises:
        ParamsError: the schema of a strict tool cannot be honoured.
        CirciusError: calls are to be enforced, and there is nothing to do it with.
    """
    if use.mode == "none":
        return _without_calls(request, form, vocab_size)
    names = [tool.name for tool in use.callable]
    must_hold = use.mode == "required" or any(tool.strict for tool in use.callable)
    try:
        grammars = forms()
    except CirciusError:
        if must_hold or request.constrain is not None:
            raise
        return replace(request, read_calls=lambda: CallReader(form, names, is_held=False))
    constrain = _constrained(request, use, form, grammars, tokenizer, vocab_size)
    return replace(request, constrain=constrain, read_calls=lambda: CallReader(form, names, is_held=True))


def _constrained(
    request: Request, use: ToolUse, form: CallForm, grammars: Grammars, tokenizer: Tokenizer, vocab_size: int
) -> Callable[[], Constraint]:
    asked = request.params.structured_outputs
    if asked is not None and form.is_only_first:
        raise ParamsError(
            "tools: this model writes its calls as plain JSON, which cannot be told from an answer in the form of "
            "response_format: leave out one of them"
        )
    is_lazy = use.mode == "auto" and asked is None
    grammar = calls_grammar(
        form,
        use.callable,
        grammars.problem,
        parallel=use.parallel,
        begins=not is_lazy,
        answer=None if asked is None else asked.schema,
    )
    make = grammars.matcher(grammar, "tools")
    if not is_lazy:
        return make
    return lambda: LazyCalls(form, make, tokenizer=tokenizer, vocab_size=vocab_size)


def _without_calls(request: Request, form: CallForm, vocab_size: int) -> Request:
    trigger = form.trigger
    if not isinstance(trigger, int) or request.constrain is not None:  # a form of its own has no control tokens
        return request
    return replace(request, constrain=lambda: AllBut(trigger, vocab_size=vocab_size))
