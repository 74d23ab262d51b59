"""Writes docs/cli.md from the command line's own definitions, so that the page cannot lie.

    python docs/generate_cli.py          # write the page
    python docs/generate_cli.py --check  # exit 1 if the page differs from what the program says

Tables of names, defaults and sentences rather than pasted `--help` screens: those change with the terminal's width.
"""

import sys
from pathlib import Path
from typing import Any

import typer

from circius.cli.main import app

PAGE = Path(__file__).with_name("cli.md")

OPENING = """# The command line

This page is made from the program by `docs/generate_cli.py`; change the program, not the page.

Results go to stdout; notes, progress and statistics go to stderr. `--json` prints one object on stdout and nothing
else. A command that fails prints one line, `circius: error: ...`, and exits with 2 when the input was at fault, with 1
when something else was, and with 130 after Ctrl-C.
"""


def page() -> str:
    """The whole page."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("circius", ["--version"], resilient_parsing=True)
    verbs = [group.commands[name] for name in group.list_commands(context)]
    parts = [OPENING, "## circius\n", f"    circius {usage(group)}\n", parameter_table(group), verb_table(verbs)]
    for verb in verbs:
        parts += [f"## circius {verb.name}\n", f"    circius {verb.name} {usage(verb)}\n", description(verb)]
        parts.append(parameter_table(verb))
    return "\n".join(part for part in parts if part)


def usage(command: Any) -> str:
    """The arguments of a command in one line."""
    context = command.make_context(command.name, [], resilient_parsing=True)
    return " ".join(command.collect_usage_pieces(context))


def description(command: Any) -> str:
    """A command's help text, unwrapped paragraph by paragraph."""
    paragraphs = (command.help or "").replace("\b\n", "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs) + "\n"


def verb_table(verbs: list[Any]) -> str:
    """One line a verb, its first sentence."""
    rows = [f"| [`{verb.name}`](#circius-{verb.name}) | {first_paragraph(verb)} |" for verb in verbs]
    return "\n".join(["| verb | does |", "|---|---|", *rows]) + "\n"


def first_paragraph(verb: Any) -> str:
    """The opening paragraph of a verb's help, on one line."""
    return " ".join((verb.help or "").split("\n\n")[0].split())


def parameter_table(command: Any) -> str:
    """The arguments and options of a command."""
    rows = [row(parameter) for parameter in command.params if not getattr(parameter, "hidden", False)]
    return "\n".join(["| | default | |", "|---|---|---|", *rows]) + "\n" if rows else ""


def row(parameter: Any) -> str:
    """One argument or option: its names, its default, its help."""
    if parameter.param_type_name == "argument":
        name = f"`{parameter.metavar or parameter.name.upper()}`"
    else:
        value = "" if parameter.is_flag else f" {value_name(parameter)}"
        name = ", ".join(f"`{option}{value}`" for option in parameter.opts)
    return f"| {escape(name)} | {escape(default(parameter))} | {escape(parameter.help or '')} |"


def value_name(parameter: Any) -> str:
    """What stands for the value of an option: its metavar, or its choices."""
    choices = parameter.type_descriptor.choices
    return parameter.metavar or "|".join(choice.value for choice in choices or ()) or parameter.name.upper()


def default(parameter: Any) -> str:
    """The default as the help shows it: empty when there is nothing to say."""
    if isinstance(parameter.show_default, str):
        return parameter.show_default
    value = getattr(parameter.default, "value", parameter.default)
    if parameter.required:
        return "required" if parameter.param_type_name == "argument" else ""
    return "" if value is None or value is False or value == [] else f"`{value}`"


def escape(cell: str) -> str:
    """A cell in which a bar does not end the cell."""
    return cell.replace("|", "\\|")


def main(arguments: list[str]) -> int:
    """Writes the page, or with `--check` compares it; the exit code."""
    if arguments == ["--check"]:
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page():
            return 0
        print(f"{PAGE.name} is not what the program says: run `python docs/generate_cli.py`", file=sys.stderr)
        return 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
