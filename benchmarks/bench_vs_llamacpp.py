"""circius beside llama.cpp on this machine: the same random weights of Mistral 7B v0.1's shape, the same threads.

    python benchmarks/bench_vs_llamacpp.py --work FOLDER (--llamacpp BIN_FOLDER | --build) [--only tg0 pp512 ...]

Each figure is taken in rounds in which the two take turns, each in a process of its own; a run during which others
used the machine is thrown away and taken again. llama.cpp runs with flash attention on and off in the first round, and
from then on in the better way; its weights are mapped, and repacked at load as it does by itself. The models are made
once and kept in --work: Q4_0 with Q8_0 embedding and output, and the same numbers as a packed folder for circius.

Long contexts and bf16 are run on a few layers (--deep-layers) with a vocabulary of 512, and the speeds scaled to 32
layers (marked with *): at full size llama.cpp takes half an hour to read 16,384 tokens. Figures that are in --out
already are not taken again, so a run that was stopped goes on where it was.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from circius.engine import machine
from llamacpp import LlamaCpp, build
from peer_figures import FIGURES, LLAMACPP, Figure, Setup
from peer_models import Models
from roofline import RESULTS, Attempt, append, limits, lines_of, undisturbed

LOG_WIDTH = 160


def take(figure: Figure, setup: Setup, *, rounds: int, tries: int, patience_s: float) -> dict[str, Any]:
    """The line of one figure, after all its rounds."""
    pair = setup.models.pair(figure.kind)

    def attempt(work: Callable[[], float]) -> Attempt[float]:
        return undisturbed(work, tries=tries, patience_s=patience_s)

    load_before, limits_before = machine.load(), limits()
    ours: list[Attempt[float]] = []
    theirs: dict[bool, list[Attempt[float]]] = {False: [], True: []}
    flashes = [False, True] if figure.has_flash else [False]
    for _ in range(min(rounds, figure.most_rounds)):
        ours.append(attempt(lambda: figure.ours(setup, pair.ours)))
        for flash in flashes:
            theirs[flash].append(attempt(lambda flash=flash: figure.theirs(setup, pair.theirs, flash)))
        best = min if figure.is_cost else max
        flashes = [best(flashes, key=lambda flash: theirs[flash][-1].result)]
    flash, scale = flashes[0], figure.scale(pair)
    every = [*ours, *theirs[False], *theirs[True]]
    mine, peer = (scale * statistics.median(a.result for a in side) for side in (ours, theirs[flash]))
    ratio = mine / peer
    return {
        **identity(figure, setup),
        "about": figure.about,
        "unit": figure.unit,
        "circius": mine,
        "peer": peer,
        "ratio": ratio,
        "goal": figure.goal,
        "is_cost": figure.is_cost,
        "reached": figure.reached(ratio),
        "scaled_by": scale,
        "flash_attention": flash if figure.has_flash else None,
        "circius_runs": [scale * a.result for a in ours],
        "peer_runs": {
            "flash on" if on else "flash off": [scale * a.result for a in side] for on, side in theirs.items()
        },
        "foreign_shares": [a.foreign_share for a in every],
        "disturbed": any(a.is_disturbed for a in every),
        "load_before": load_before,
        "load_after": machine.load(),
        "limits_before": limits_before,
        "limits_after": limits(),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def identity(figure: Figure, setup: Setup) -> dict[str, Any]:
    """What must be the same for a line to stand for another run."""
    return {
        "figure": figure.name,
        "peer_name": setup.llama.version() if figure.peer == LLAMACPP else figure.peer,
        "models": setup.models.describe(figure.kind),
        "processor": machine.processor_name(),
        "threads": setup.n_threads,
        "tokens": setup.tokens,
    }


def found_in(lines: Sequence[dict[str, Any]], figure: Figure, setup: Setup) -> dict[str, Any] | None:
    """The last line that was written for this figure, these models and this machine."""
    wanted = identity(figure, setup)
    fitting = [line for line in lines if all(line.get(key) == value for key, value in wanted.items())]
    return fitting[-1] if fitting else None


def show(lines: Sequence[dict[str, Any]]) -> None:
    table = Table("figure", "", "circius", "peer", "flash", "ratio", "goal", "reached", "load", "disturbed")
    flashes = {True: "on", False: "off", None: ""}
    for line in lines:
        table.add_row(
            line["figure"] + ("*" if line["scaled_by"] != 1 else ""), line["about"],
            f"{line['circius']:.2f} {line['unit']}", f"{line['peer']:.2f} {line['unit']}",
            flashes[line["flash_attention"]], f"{line['ratio']:.2f}x",
            f"{'<=' if line['is_cost'] else '>='} {line['goal']:g}x", "yes" if line["reached"] else "NO",
            f"{line['load_before']:.1f}, {line['load_after']:.1f}", "yes" if line["disturbed"] else "no",
        )  # fmt: skip
    console = Console()
    console = console if console.is_terminal else Console(width=LOG_WIDTH)
    console.print(table)
    if any(line["scaled_by"] != 1 for line in lines):
        console.print("* on few layers, without the output matrix, scaled to 32 layers")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for models (11 GB) and for --build")
    parser.add_argument("--llamacpp", type=Path, help="folder with llama-bench and its kin")
    parser.add_argument("--build", action="store_true", help="build llama.cpp in --work (some minutes, once)")
    parser.add_argument("--only", nargs="+", choices=[figure.name for figure in FIGURES], help="these figures alone")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--layers", type=int, default=32, help="of the model for the figures at full size")
    parser.add_argument("--deep-layers", type=int, default=4, help="of the models for long contexts and bf16")
    parser.add_argument("--tokens", type=int, default=32, help="decoded in each run and stream")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each figure; those at 16,384 take one")
    parser.add_argument("--tries", type=int, default=3, help="runs thrown away as disturbed before one is kept")
    parser.add_argument("--patience", type=float, default=300, help="seconds to wait for a quiet machine before a run")
    parser.add_argument(
        "--peers", type=Path, help="a Python with ctranslate2, transformers and torch, to pre-fill beside"
    )
    parser.add_argument("--out", type=Path, help=f"result lines, such as {RESULTS.name}/vs_llamacpp.jsonl")
    parser.add_argument("--again", action="store_true", help="take figures again that --out has already")
    given = parser.parse_args()
    possible = [figure for figure in FIGURES if given.peers or figure.peer == LLAMACPP]
    chosen = [figure for figure in possible if given.only is None or figure.name in given.only]
    if not chosen:
        parser.error(f"{', '.join(given.only)} needs --peers")
    folder = given.work / "llama.cpp" / "build" / "bin" if given.llamacpp is None else given.llamacpp
    setup = Setup(
        models=Models(given.work, n_layers=given.layers, n_deep_layers=given.deep_layers),
        llama=LlamaCpp(folder, given.threads),
        n_threads=given.threads,
        tokens=given.tokens,
        libraries=given.peers,
    )
    if given.build and setup.llama.missing():
        build(given.work / "llama.cpp")
    if missing := setup.llama.missing():
        parser.error(f"{folder} has no {', '.join(missing)}: give --llamacpp, or --build")
    before = lines_of(given.out) if given.out and not given.again else []
    lines = []
    for figure in chosen:
        line = found_in(before, figure, setup)
        if line is None:
            line = take(figure, setup, rounds=given.rounds, tries=given.tries, patience_s=given.patience)
            if given.out:
                append(given.out, line)
        lines.append(line)
        show(lines)


if __name__ == "__main__":
    main()
