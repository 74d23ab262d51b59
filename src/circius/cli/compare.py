"""`circius compare`: two runs of `circius eval`, item by item."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from circius.cli import options
from circius.cli.output import Output, table

NAME = "compare"


def command(
    first: Annotated[
        Path, typer.Argument(metavar="RUN_A", help="The folder of a run of `circius eval`.", show_default=False)
    ],
    second: Annotated[
        Path, typer.Argument(metavar="RUN_B", help="The folder of another, over the same items.", show_default=False)
    ],
    task: Annotated[
        list[str] | None,
        typer.Option("--task", metavar="NAME", help="Compare this task only; repeatable.", show_default="all"),
    ] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", metavar="NAME", help="Of this metric.", show_default="each task's own")
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare two runs: by how much the second is better, and whether chance alone could do that.

    The same items were asked in both, so their scores are compared pair by pair: McNemar's exact test for right and
    wrong, a paired bootstrap for other scores and for items that belong together.
    """
    output = Output(as_json=as_json, quiet=quiet)
    from circius.evals.comparing import compared
    from circius.evals.record import RunFolder
    from circius.evals.show import compared_rows

    found = compared(RunFolder(first), RunFolder(second), tasks=tuple(task or ()), metric=metric)
    if as_json:
        output.emit({"tasks": {name: {"metric": own, **asdict(paired)} for name, (own, _, paired) in found.items()}})
        return
    output.line(table(*compared_rows(found)))
    methods = dict.fromkeys(paired.method for _, _, paired in found.values())
    output.dim(f"second minus first; better: items on which the first and the second are; {'; '.join(methods)}")
