"""The packed products over all linear layers of a Mistral 7B, beside what the machine can read and torch can multiply.

    python benchmarks/bench_packed.py [--rows 1 2 4 8 32 128 512] [--bits 4] [--group 32] [--mins] [--threads 2]
                                      [--isa avx2] [--out FILE]

Two decoder layers of the true shape, so that no weight is still in the cache when it comes again, are multiplied as
the model does it: q, k and v in one call, then o, then gate and up in one, then down. For each number of rows it prints
the median time of one layer, the tokens per second that 32 such layers would allow, bytes of weights read and
operations per second; beside them the memory bandwidth (torch's sum of 1 GiB, before and after) and torch's float32
product of a 4096 x 4096 matrix in the same run. Weights are random: speed does not depend on them.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from circius.kernels import native
from circius.kernels.packed import PackedMatrix
from circius.kernels.packed_linear import packed_linears

N_LAYERS = 32
CALLS = ((4096, (4096, 1024, 1024)), (4096, (4096,)), (4096, (14336, 14336)), (14336, (4096,)))
"""The inputs and outputs of the products of a layer that share their rows."""


@dataclass(frozen=True)
class Measured:
    kernels: str
    bits: int
    group: int
    mins: bool
    n_rows: int
    n_threads: int
    layer_ms: float
    tokens_per_s: float
    read_gb_s: float
    gop_s: float
    bandwidth_gb_s: float
    torch_float32_gflop_s: float


def random_matrix(n_outputs: int, n_inputs: int, bits: int, group: int, mins: bool) -> PackedMatrix:
    tiles = -(-n_outputs // 16)
    low, high, dtype = (0, 256, torch.uint8) if bits == 4 else (-127, 128, torch.int8)
    codes = torch.randint(low, high, (tiles, n_inputs * bits // 32, 64), dtype=dtype)
    scales = torch.rand(tiles, n_inputs // min(group, n_inputs), 16).half() * 0.01
    return PackedMatrix(n_outputs=n_outputs, codes=codes, scales=scales, mins=-8 * scales if mins else None)


def seconds(step: Callable[[], object], *, at_least: float) -> float:
    """The median time of a step that is repeated for so many seconds, and five times at least."""
    step()
    taken: list[float] = []
    while len(taken) < 5 or sum(taken) < at_least:
        started = time.perf_counter()
        step()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def bandwidth_gb_s(numbers: Tensor) -> float:
    return numbers.numel() * 4 / seconds(numbers.sum, at_least=0.5) / 1e9


def run_layers(layers: list[list[tuple[PackedMatrix, ...]]], inputs: dict[int, Tensor]) -> None:
    for layer in layers:
        for matrices in layer:
            packed_linears(inputs[matrices[0].n_inputs], matrices)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 32, 128, 512])
    parser.add_argument("--bits", type=int, default=4, choices=(4, 8))
    parser.add_argument("--group", type=int, default=32)
    parser.add_argument("--mins", action="store_true", help="with minima, as Q4_1 has")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--isa", choices=sorted(native.ISAS), help="instructions to use, if not the best there are")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long to repeat each measurement")
    parser.add_argument("--out", type=Path, help="append a JSON line for each row of the table to this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    layers = [
        [tuple(random_matrix(n, k, args.bits, args.group, args.mins) for n in outputs) for k, outputs in CALLS]
        for _ in range(2)
    ]
    matrices = [matrix for layer in layers for call in layer for matrix in call]
    n_bytes = sum(matrix.n_bytes for matrix in matrices) / len(layers)
    n_weights = sum(matrix.n_outputs * matrix.n_inputs for matrix in matrices) / len(layers)

    numbers = torch.ones(2**28)
    dense = torch.randn(4096, 4096)
    before = bandwidth_gb_s(numbers)
    table = Table("rows", "ms/layer", "tok/s", "GB/s", "GOP/s", "torch fp32 GFLOP/s")
    results = []
    with native.forced(args.isa) if args.isa else nullcontext():
        kernels = native.describe()
        for n_rows in args.rows:
            inputs = {k: torch.randn(n_rows, k) for k in (4096, 14336)}
            taken = seconds(lambda: run_layers(layers, inputs), at_least=args.seconds) / len(layers)  # noqa: B023
            product = seconds(lambda: inputs[4096] @ dense.T, at_least=args.seconds / 4)  # noqa: B023
            results.append(
                Measured(
                    kernels=kernels,
                    bits=args.bits,
                    group=args.group,
                    mins=args.mins,
                    n_rows=n_rows,
                    n_threads=args.threads,
                    layer_ms=taken * 1e3,
                    tokens_per_s=n_rows / (N_LAYERS * taken),
                    read_gb_s=n_bytes / taken / 1e9,
                    gop_s=2 * n_weights * n_rows / taken / 1e9,
                    bandwidth_gb_s=before,
                    torch_float32_gflop_s=2 * dense.numel() * n_rows / product / 1e9,
                )
            )
    after = bandwidth_gb_s(numbers)
    for r in results:
        table.add_row(
            str(r.n_rows),
            f"{r.layer_ms:.2f}",
            f"{r.tokens_per_s:.1f}",
            f"{r.read_gb_s:.1f}",
            f"{r.gop_s:.0f}",
            f"{r.torch_float32_gflop_s:.0f}",
        )
    console = Console()
    console.print(f"{kernels}; {args.bits} bits, groups of {args.group}, {args.threads} threads")
    console.print(table)
    console.print(f"memory: {before:.1f} GB/s before, {after:.1f} GB/s after")
    if args.out:
        with args.out.open("a") as file:
            file.writelines(json.dumps(asdict(r)) + "\n" for r in results)


if __name__ == "__main__":
    main()
