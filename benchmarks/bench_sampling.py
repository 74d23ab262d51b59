"""What picking one token costs on this machine, for the ways of sampling that people use.

    python benchmarks/bench_sampling.py [--vocab 32000 49152] [--rows 1 8] [--out FILE]

Logits are normal with a spread of 3 and one token well ahead, about as sure as a trained model is. Medians, beside the
time to find the largest logit, which nothing can do without.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from circius import SamplingParams
from circius.engine.host_sampler import HostSampler
from circius.engine.sampling import SamplerRow

WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "temperature 0.7": {"temperature": 0.7},
    "top_k 50": {"top_k": 50},
    "top_p 0.9": {"top_p": 0.9},
    "as circius chat: 0.3, top_p 0.9": {"temperature": 0.3, "top_p": 0.9},
    "min_p 0.05": {"min_p": 0.05},
    "greedy, repetition 1.1": {"temperature": 0, "repetition_penalty": 1.1},
    "0.7, top_k 50, top_p 0.9": {"temperature": 0.7, "top_k": 50, "top_p": 0.9},
}


@dataclass(frozen=True)
class Measured:
    way: str
    vocab_size: int
    n_rows: int
    microseconds: float
    largest_us: float


def microseconds(step: Callable[[], object], *, n: int = 200) -> float:
    times = []
    for _ in range(n):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return 1e6 * statistics.median(times)


@torch.inference_mode()
def measure(way: str, vocab_size: int, n_rows: int) -> Measured:
    logits = torch.randn(n_rows, vocab_size) * 3
    logits[:, 100] = 18.0
    rows = [SamplerRow(SamplingParams(seed=seed, **WAYS[way]), list(range(500))) for seed in range(n_rows)]
    no_drafts: list[list[int]] = [[]] * n_rows
    sampler = HostSampler(rows, vocab_size=vocab_size)
    plain = logits.numpy()
    return Measured(
        way,
        vocab_size,
        n_rows,
        microseconds(lambda: sampler(logits, no_drafts)),
        microseconds(lambda: plain.argmax(-1)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab", type=int, nargs="+", default=[32_000, 49_152])
    parser.add_argument("--rows", type=int, nargs="+", default=[1])
    parser.add_argument("--out", type=Path, help="append the results as JSON lines")
    given = parser.parse_args()
    table = Table("way", "vocabulary", "rows", "microseconds a step", "largest logit alone")
    for vocab_size in given.vocab:
        for n_rows in given.rows:
            for way in WAYS:
                found = measure(way, vocab_size, n_rows)
                cells = f"{vocab_size:,}", str(n_rows), f"{found.microseconds:.0f}", f"{found.largest_us:.0f}"
                table.add_row(way, *cells)
                if given.out:
                    with given.out.open("a") as file:
                        file.write(json.dumps(asdict(found)) + "\n")
    Console().print(table)


if __name__ == "__main__":
    main()
