"""Writing and loading checkpoints of the true Mistral 7B v0.1 shape: time, and peak memory over the checkpoint's size.

    python benchmarks/bench_load.py [--layers 32] [--layouts hf consolidated] [--folder DIR] [--save]

Each checkpoint is written by `circius init` with random weights in bf16, then loaded by circius and, where it can read
the layout, by transformers, the peer. Every step is a process of its own, so that its peak is its own. Loading touches
every weight (circius looks for NaN; for the peer every tensor is summed), so both have really read the file.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results" / "load.jsonl"
GIB = 2**30


@dataclass(frozen=True)
class Measured:
    step: str
    layout: str
    n_layers: int
    checkpoint_bytes: int
    seconds: float
    peak_bytes: int


def peak_bytes() -> int:
    """The peak of this process alone; getrusage would count the one that started it."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) * 1024


def write(folder: Path, layout: str, n_layers: int) -> None:
    from dataclasses import replace

    from circius.base.config import PRESETS
    from circius.weights.init import init_checkpoint

    init_checkpoint(replace(PRESETS["v0.1"], n_layers=n_layers), folder, to=layout)  # type: ignore[arg-type]


def load(folder: Path) -> None:
    from circius.weights import load_model

    load_model(folder)


def load_with_transformers(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    for parameter in model.parameters():
        parameter.sum()


def run_step(step: str, folder: Path, layout: str, n_layers: int) -> Measured:
    """Runs one step in this process."""
    started = time.perf_counter()
    if step == "write":
        write(folder, layout, n_layers)
    elif step == "load":
        load(folder)
    else:
        load_with_transformers(folder)
    seconds = time.perf_counter() - started
    peak = peak_bytes()
    size = sum(file.stat().st_size for file in folder.iterdir())
    return Measured(step, layout, n_layers, size, seconds, peak)


def run_apart(step: str, folder: Path, layout: str, n_layers: int) -> Measured:
    command = [sys.executable, __file__, "--one", step, str(folder), layout, str(n_layers)]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Measured(**json.loads(run.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--layouts", nargs="+", default=["hf", "consolidated"])
    parser.add_argument("--folder", type=Path, help="where the checkpoints go for a while; by default a temporary one")
    parser.add_argument("--save", action="store_true", help=f"append the lines to {RESULTS.name}")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        step, folder, layout, n_layers = given.one
        print(json.dumps(asdict(run_step(step, Path(folder), layout, int(n_layers)))))
        return
    table = Table("layout", "step", "GiB on disk", "seconds", "GiB/s", "peak GiB", "peak / size")
    for layout in given.layouts:
        with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
            folder = Path(scratch) / "model"
            steps = ["write", "load", "load", *(["load with transformers"] if layout == "hf" else [])]
            for step in steps:
                m = run_apart(step, folder, layout, given.layers)
                size = m.checkpoint_bytes / GIB
                table.add_row(
                    layout, step, f"{size:.2f}", f"{m.seconds:.1f}", f"{size / m.seconds:.2f}",
                    f"{m.peak_bytes / GIB:.2f}", f"{m.peak_bytes / m.checkpoint_bytes:.2f}",
                )  # fmt: skip
                if given.save:
                    with RESULTS.open("a") as file:
                        file.write(json.dumps(asdict(m)) + "\n")
    Console().print(table)


if __name__ == "__main__":
    main()
