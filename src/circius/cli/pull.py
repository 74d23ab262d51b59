"""`circius pull`: fetch a model once, use it offline ever after."""

from pathlib import Path
from typing import Annotated, Any

import typer

from circius.base.errors import InvalidInputError, ModelNotFoundError
from circius.cli import options
from circius.cli.output import Output, table
from circius.cli.progress import progress

NAME = "pull"


def command(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="An alias, or a Hub id: owner/name, owner/name@revision, owner/name:file.gguf.",
            show_default=False,
        ),
    ] = None,
    list_aliases: Annotated[
        bool, typer.Option("--list", metavar=options.FLAG, help="List the aliases instead.")
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Fetch a model into CIRCIUS_HOME (by default ~/.cache/circius) and print where it is.

    A download that was cut off resumes; what arrives is checked against its published checksum. A model that is
    already there is not fetched again.
    """
    output = Output(as_json=as_json, quiet=quiet)
    if list_aliases:
        if name is not None:
            raise InvalidInputError(f"both {name!r} and --list were given: give one of them")
        _list_aliases(output)
        return
    if name is None:
        raise InvalidInputError("no name given: `circius pull --list` shows what there is")
    path = fetch(name, output)
    if as_json:
        output.emit({"name": name, "path": str(path)})
    else:
        output.line(str(path))


def fetch(name: str, output: Output) -> Path:
    """The path of the model `name`, downloaded with a progress bar if it is not there yet."""
    from circius.weights.hub import pull

    with progress(f"pulling {name}", output, unit="bytes") as on_progress:
        return pull(name, on_progress=on_progress, on_note=output.note)


def _list_aliases(output: Output) -> None:
    from circius.weights.aliases import ALIASES

    entries: list[dict[str, Any]] = [
        {"name": name, "source": alias.source, "about": alias.about, "path": _path_of(name)}
        for name, alias in ALIASES.items()
    ]
    if output.as_json:
        output.emit({"aliases": entries})
        return
    rows = [[entry["name"], "yes" if entry["path"] else "no", entry["source"], entry["about"]] for entry in entries]
    output.line(table(["alias", "here", "source", "about"], rows))


def _path_of(name: str) -> str | None:
    from circius.weights.hub import resolve

    try:
        return str(resolve(name))
    except ModelNotFoundError:
        return None
