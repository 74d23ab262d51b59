"""Jinja as chat templates expect it, shut in: no Python internals, no endless loops, no endless text.

The environment has what transformers gives to templates (`raise_exception`, `strftime_now`, `tojson`, loop controls,
trimmed blocks), so that a model's template renders as it does there.
"""

import json
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from circius.base.errors import TemplateError

_TIME_LIMIT_S = 10.0
_SIZE_LIMIT = 64 * 2**20
_DEADLINE = "circius_deadline"


def render(template: jinja2.Template, variables: Mapping[str, Any]) -> str:
    """What `template` makes of `variables`.

    Raises:
        TemplateError: the template refuses, fails, or goes on for too long; one line.
    """
    pieces: list[str] = []
    size = 0
    try:
        for piece in template.generate({**variables, _DEADLINE: time.monotonic() + _TIME_LIMIT_S}):
            pieces.append(piece)
            size += len(piece)
            if size > _SIZE_LIMIT:
                raise TemplateError(f"the chat template wrote more than {_SIZE_LIMIT} characters: it does not end")
    except jinja2.TemplateError as error:
        raise TemplateError(f"the chat template cannot render this conversation: {_one_line(error)}") from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, TemplateError):
            raise
        raise TemplateError(
            f"the chat template failed on this conversation: {type(error).__name__}: {_one_line(error)}"
        ) from error
    return "".join(pieces)


def compile_template(source: str) -> jinja2.Template:
    """The template in `source`.

    Raises:
        TemplateError: it is not Jinja.
    """
    try:
        return _environment().from_string(source)
    except (jinja2.TemplateError, RecursionError) as error:
        raise TemplateError(f"the model's chat template is not valid Jinja: {_one_line(error)}") from error


def uses_variable(source: str, name: str) -> bool:
    """Whether a template looks at a variable that it does not make itself.

    >>> uses_variable("{% for tool in tools %}{{ tool }}{% endfor %}", "tools"), uses_variable("tools", "tools")
    (True, False)
    """
    template = _environment().parse(source)
    return name in meta.find_undeclared_variables(template)


def _environment() -> "_Sandbox":
    environment = _Sandbox(
        trim_blocks=True, lstrip_blocks=True, autoescape=False, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**"})

    def call(self, context: Context, called: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        if time.monotonic() > context.get(_DEADLINE, float("inf")):
            raise TemplateError(f"the chat template ran for more than {_TIME_LIMIT_S:.0f} s: it does not end")
        return super().call(context, called, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """The product or power, if it is not absurdly large."""
        if operator == "**" and (abs(left) > 2**32 or abs(right) > 64):
            raise TemplateError("the chat template computes a power that is too large")
        for value, times in ((left, right), (right, left)):
            if isinstance(value, (str, list, tuple)) and len(value) * times > _SIZE_LIMIT:
                raise TemplateError(f"the chat template makes a text of more than {_SIZE_LIMIT} characters")
        return super().call_binop(context, operator, left, right)


class _Generation(Extension):
    """`{% generation %}`, which marks an answer for training: here it is only its content."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own declaration

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without the HTML escapes of Jinja's own filter."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
