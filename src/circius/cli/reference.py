"""The page docs/cli.md, made from the command line's own definitions, so that it cannot lie.

    python -m circius.cli.reference docs/cli.md

Tables of names, defaults and sentences rather than pasted `--help` screens: those change with the terminal's width.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from circius.cli.main import app

OPENING = """# The command line

This page is made from the program by `make docs`: change the program, not the page.

Results go to stdout; notes, progress and statistics go to stderr. `--json` prints one object on stdout and nothing
else. A command that fails prints one line, `circius: error: ...`, and exits with 2 when the input was at fault, with 1
when something else was, and with 130 after Ctrl-C.
"""

_ADVERTISED_BY_SHELLS = ("install_completion", "show_completion")
"""Options that Typer adds, whose help names the shell that asks."""


def page() -> str:
    """The whole page, as Markdown."""
    # Typer's command objects have changed their classes between versions, but not the attributes used here.
    group: Any = typer.main.get_command(app)
    verbs = dict(_named(group))
    parts = [OPENING, "## circius\n", f"    circius {_usage(group)}\n", _parameters(group), _verbs(verbs)]
    for name, verb in verbs.items():
        parts += [f"## circius {name}\n", f"    circius {name} {_usage(verb)}\n", f"{verb.help}\n"]
        parts.append(_parameters(verb))
    return "\n".join(parts)


def _named(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Every verb with its whole name, those of groups among them."""
    for command in group.commands.values():
        name = f"{before}{command.name}"
        yield from _named(command, f"{name} ") if hasattr(command, "commands") else [(name, command)]


def _usage(command: Any) -> str:
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    names = [f"{_name(argument)}" if argument.required else f"[{_name(argument)}]" for argument in arguments]
    tail = ["VERB ..."] if hasattr(command, "commands") else names
    return " ".join(["[OPTIONS]", *tail])


def _verbs(verbs: Mapping[str, Any]) -> str:
    rows = [
        f"| [`{name}`](#circius-{name.replace(' ', '-')}) | {verb.help.partition(chr(10))[0]} |"
        for name, verb in verbs.items()
    ]
    return "\n".join(["| verb | what it does |", "|---|---|", *rows]) + "\n"


def _parameters(command: Any) -> str:
    rows = [_row(parameter) for parameter in command.params if parameter.name not in _ADVERTISED_BY_SHELLS]
    return "\n".join(["| option | default | meaning |", "|---|---|---|", *rows]) + "\n"


def _row(parameter: Any) -> str:
    cells = (_spelling(parameter), _default(parameter), parameter.help or "")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _spelling(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{_name(parameter)}`"
    value = "" if parameter.is_flag else f" {_name(parameter)}"
    return ", ".join(f"`{option}{value}`" for option in [*parameter.opts, *parameter.secondary_opts])


def _name(parameter: Any) -> str:
    """What stands for the value: its metavar, or its choices."""
    choices = parameter.type_descriptor.choices or ()
    return parameter.metavar or "|".join(choice.value for choice in choices) or parameter.name.upper()


def _default(parameter: Any) -> str:
    if isinstance(parameter.show_default, str):
        return parameter.show_default
    if parameter.required:
        return "required"
    value = getattr(parameter.default, "value", parameter.default)
    return "" if value is None or value is False else f"`{value}`"


def main(arguments: list[str]) -> int:
    """Writes the page to the file that the one argument names; the exit code."""
    if len(arguments) != 1:
        print("usage: python -m circius.cli.reference FILE", file=sys.stderr)
        return 2
    Path(arguments[0]).write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
