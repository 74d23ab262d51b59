"""Products with plain weights over the linear layers of a Mistral 7B: ours, with and without native kernels, and
torch's.

    python benchmarks/bench_linear.py [--dtypes bfloat16 float16 float32] [--rows 1 2 4 8 16 512] [--threads 2]
                                      [--out FILE]

One decoder layer of the true shape, far more than any cache holds, is multiplied as the model does it. The three take
turns. For each number of rows it prints the median time of a layer, the bytes of weights read and the operations per
second; beside them the memory bandwidth (torch's sum of 1 GiB) and torch's float32 product of a 4096 x 4096 matrix,
before and after.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from rich.console import Console
from rich.table import Table
from torch import Tensor

from circius.kernels import native
from circius.kernels.linear import linears

CALLS = ((4096, (4096, 1024, 1024)), (4096, (4096,)), (4096, (14336, 14336)), (14336, (4096,)))
"""The inputs and outputs of the products of a layer that share their rows."""
Layer = list[list[Tensor]]


@dataclass(frozen=True)
class Measured:
    way: str
    dtype: str
    n_rows: int
    n_threads: int
    layer_ms: float
    read_gb_s: float
    gflop_s: float
    bandwidth_gb_s: float
    float32_gflop_s: float


def ours(x: dict[int, Tensor], layer: Layer) -> None:
    for weights in layer:
        linears(x[weights[0].shape[1]], weights)


def ours_without_native(x: dict[int, Tensor], layer: Layer) -> None:
    with native.disabled():
        ours(x, layer)


def torchs(x: dict[int, Tensor], layer: Layer) -> None:
    for weights in layer:
        for weight in weights:
            F.linear(x[weight.shape[1]], weight)


WAYS = {"circius": ours, "circius without native kernels": ours_without_native, "torch F.linear": torchs}


def seconds_of(step: Callable[[], None]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def medians(layer: Layer, dtype: torch.dtype, n_rows: int, at_least: float) -> dict[str, float]:
    """The median time of each way, which take turns for so many seconds each; one that takes longer has two turns."""
    x = {k: torch.randn(n_rows, k).to(dtype) for k in (4096, 14336)}
    taken: dict[str, list[float]] = {name: [] for name in WAYS}
    while any(len(times) < 2 or (sum(times) < at_least and len(times) < 50) for times in taken.values()):
        for name, way in WAYS.items():
            if len(taken[name]) < 2 or sum(taken[name]) < at_least:
                taken[name].append(seconds_of(lambda: way(x, layer)))  # noqa: B023
    return {name: statistics.median(times[1:]) for name, times in taken.items()}


def ceilings() -> tuple[float, float]:
    """Bytes read, and operations in float32, per second: the best of a few."""
    numbers, x, weight = torch.ones(2**28), torch.randn(512, 4096), torch.randn(4096, 4096)
    read = min(seconds_of(lambda: numbers.sum()) for _ in range(5))
    multiply = min(seconds_of(lambda: x @ weight.T) for _ in range(5))
    return numbers.numel() * 4 / read / 1e9, 2 * len(x) * weight.numel() / multiply / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float16", "float32"])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 16, 512])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=0.5, help="how long to repeat each measurement")
    parser.add_argument("--out", type=Path, help="append a JSON line for each result to this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    table = Table("dtype", "rows", *(f"{name}: ms/layer (GB/s, GFLOP/s)" for name in WAYS))
    before = ceilings()
    results: list[Measured] = []
    with torch.inference_mode():
        for name in args.dtypes:
            dtype = getattr(torch, name)
            layer = [[torch.randn(n, k).to(dtype) for n in outputs] for k, outputs in CALLS]
            n_weights = sum(weight.numel() for weights in layer for weight in weights)
            for n_rows in args.rows:
                found = [
                    Measured(
                        *(way, name, n_rows, args.threads, taken * 1e3, n_weights * dtype.itemsize / taken / 1e9),
                        *(2 * n_rows * n_weights / taken / 1e9, *before),
                    )
                    for way, taken in medians(layer, dtype, n_rows, args.seconds).items()
                ]
                cells = [f"{m.layer_ms:.1f} ({m.read_gb_s:.1f}, {m.gflop_s:.0f})" for m in found]
                table.add_row(name, str(n_rows), *cells)
                results += found
    after = ceilings()
    console = Console()
    console.print(f"{native.describe()}; {args.threads} threads")
    console.print(table)
    for when, (read, multiply) in (("before", before), ("after", after)):
        console.print(f"{when}: memory {read:.1f} GB/s, float32 product {multiply:.0f} GFLOP/s")
    if args.out:
        with args.out.open("a") as file:
            file.writelines(json.dumps(asdict(m)) + "\n" for m in results)


if __name__ == "__main__":
    main()
