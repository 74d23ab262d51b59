"""The grammar of calls, in llguidance's notation: the text around them, and a schema for each function's arguments."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from circius.base.errors import ParamsError
from circius.engine.grammars import json_grammar, json_rule
from circius.engine.structured import check_schema
from circius.text.tool_form import GAP, MOST_GAP, CallForm, Pattern
from circius.text.tools import Tool

Problem = Callable[[str], str | None]
"""What is wrong with a grammar."""


def calls_grammar(
    form: CallForm,
    tools: Sequence[Tool],
    problem: Problem,
    *,
    parallel: bool,
    begins: bool,
    answer: Mapping[str, Any] | bool | None = None,
) -> str:
    """The grammar of an answer that calls some of `tools`.

    parallel: whether it may call more than one. begins: whether it starts with what calls begin with, or behind that.
    answer: the schema of an answer without calls, which then may be given instead.

    Raises:
        ParamsError: a schema that must hold to the letter cannot be honoured.
    """
    schemas = [_heeded(tool) for tool in tools]
    grammar = _grammar(form, tools, schemas, parallel=parallel, begins=begins, answer=answer)
    if problem(grammar) is None:
        return grammar
    schemas = [_enforced(tool, schema, problem) for tool, schema in zip(tools, schemas, strict=True)]
    return _grammar(form, tools, schemas, parallel=parallel, begins=begins, answer=answer)


def _grammar(
    form: CallForm,
    tools: Sequence[Tool],
    schemas: Sequence[Mapping[str, Any]],
    *,
    parallel: bool,
    begins: bool,
    answer: Mapping[str, Any] | bool | None,
) -> str:
    trigger = (form.trigger,) if begins else ()
    calls = f"{_rule((*trigger, *form.opening))} call"
    if parallel and form.most_calls is None:
        calls += f" ({_rule(form.next)} call)*"
    lines = [
        "start: calls" if answer is None else "start: calls | answer",
        f"calls: {calls} {_rule(form.closing)}",
        f"call: {' | '.join(f'call_{index}' for index in range(len(tools)))}",
        f"GAP: /[ \\n]{{1,{MOST_GAP}}}/",
    ]
    for index, (tool, schema) in enumerate(zip(tools, schemas, strict=True)):
        head = json.dumps(json.dumps(tool.name) + form.object_middle)
        lines += [f"call_{index}: {head} arguments_{index}", f"arguments_{index}: {json_rule(schema)}"]
    if answer is not None:
        lines.append(f"answer: {json_rule(answer)}")
    return "\n".join(lines)


def _heeded(tool: Tool) -> Mapping[str, Any]:
    """The schema of a function's arguments if every word of it is known, else that of any object."""
    try:
        check_schema(tool.schema, _named(tool))
    except ParamsError as error:
        return _instead(tool, str(error))
    return tool.schema


def _enforced(tool: Tool, schema: Mapping[str, Any], problem: Problem) -> Mapping[str, Any]:
    """The same for one that the library does not take."""
    found = problem(json_grammar(schema))
    return schema if found is None else _instead(tool, f"{_named(tool)} cannot be honoured: {found}")


def _instead(tool: Tool, refusal: str) -> Mapping[str, Any]:
    if tool.strict:
        raise ParamsError(f"{refusal}; without strict, what cannot be enforced is only shown to the model")
    return {"type": "object"}


def _named(tool: Tool) -> str:
    return f"tools: the parameters of {tool.name}"


def _rule(pattern: Pattern) -> str:
    return " ".join(
        "GAP?" if part is GAP else f"<[{part}]>" if isinstance(part, int) else json.dumps(part, ensure_ascii=False)
        for part in pattern
    )
