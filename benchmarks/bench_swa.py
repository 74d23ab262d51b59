"""Attention with a sliding window against full attention: the paper's claim, and what one decoded token costs.

    python benchmarks/bench_swa.py [--tokens 16384] [--window 4096] [--dtype float32] [--rounds 3]
        [--peers float32 bfloat16] [--part both|window|decode] [--out benchmarks/results/swa.jsonl]

One layer of 32 query and 8 key-value heads of 128, without a past. Window: ours with the window, ours without it, and
torch's causal attention (scaled_dot_product_attention), taking turns; medians. Speeds count the pairs of query and key
that are visible, four operations a number of a head. The window leaves (T^2/2) / (W*T - W^2/2) times fewer pairs, and
no speed-up of the same kernel can be larger.

Decode: the attention of one token that sees --window keys, over 32 layers, in every format of the cache, beside the
time to read that cache once from memory, measured in turn with it.
"""

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from rich.console import Console
from rich.table import Table

import roofline
from circius.base.config import Window
from circius.base.errors import CirciusError
from circius.engine import machine
from circius.kernels import native
from circius.kernels.ring_attention import NewTokens, RingAttention, Rings, Workspace
from circius.model.shelf import CACHE_DTYPES

N_HEADS, N_KV_HEADS, HEAD_DIM, N_LAYERS = 32, 8, 128, 32
OPERATIONS_A_PAIR = 4 * N_HEADS * HEAD_DIM


def pairs(n_tokens: int, window: Window) -> int:
    """How many keys all queries see together.

    >>> pairs(16384, None) / pairs(16384, 4096)
    2.2855...
    """
    seen = n_tokens if window is None else min(window, n_tokens)
    return seen * (seen + 1) // 2 + (n_tokens - seen) * seen


def in_turns(works: dict[str, Callable[[], object]], n_rounds: int) -> dict[str, float]:
    """The median seconds of each, after a round that warms up."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(n_rounds + 1):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            if turn:
                taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in taken.items()}


def ours(n_tokens: int, window: Window, dtype: torch.dtype) -> RingAttention:
    new = [NewTokens(None, 0, 0, n_tokens)]
    return RingAttention(
        new, n_heads=N_HEADS, n_kv_heads=N_KV_HEADS, window=window, cache_dtype=dtype, workspace=Workspace()
    )


def measure_window(n_tokens: int, window: int, dtype: torch.dtype, peers: list[str], n_rounds: int) -> dict[str, float]:
    query, key, value = (torch.randn(n_tokens, heads, HEAD_DIM) for heads in (N_HEADS, N_KV_HEADS, N_KV_HEADS))
    own = [x.to(dtype) for x in (query, key, value)]
    windowed, causal = ours(n_tokens, window, dtype), ours(n_tokens, None, dtype)
    works: dict[str, Callable[[], object]] = {"window": lambda: windowed(0, *own), "causal": lambda: causal(0, *own)}
    for name in peers:
        theirs = [x.to(getattr(torch, name)).transpose(0, 1)[None] for x in (query, key, value)]
        works[f"torch {name}"] = lambda given=theirs: F.scaled_dot_product_attention(
            *given, is_causal=True, enable_gqa=True
        )
    return in_turns(works, n_rounds)


def show_window(given: argparse.Namespace, console: Console) -> dict[str, float]:
    dtype = getattr(torch, given.dtype)
    seconds = measure_window(given.tokens, given.window, dtype, given.peers, given.rounds)
    table = Table("attention", "seconds", "GFLOP/s", "times the window's")
    for name, taken in seconds.items():
        speed = OPERATIONS_A_PAIR * pairs(given.tokens, given.window if name == "window" else None) / taken
        table.add_row(name, f"{taken:.3f}", f"{speed / 1e9:.0f}", f"{taken / seconds['window']:.2f}")
    console.print(table)
    limit = pairs(given.tokens, None) / pairs(given.tokens, given.window)
    console.print(f"T = {given.tokens:,}, W = {given.window:,}: {limit:.2f} times fewer pairs")
    return {f"{name} s": taken for name, taken in seconds.items()} | {"limit": limit}


def filled_rings(dtype: torch.dtype, n_slots: int) -> Rings:
    shape = (N_LAYERS, 1, N_KV_HEADS, n_slots)
    one_layer = torch.randn(*shape[1:], HEAD_DIM) * (40 if dtype == torch.int8 else 1)
    keys, values = (one_layer.to(dtype).expand(*shape, HEAD_DIM).contiguous() for _ in range(2))
    scales = [torch.full(shape, 1 / 40) if dtype == torch.int8 else None for _ in range(2)]
    return Rings(keys, values, *scales)


def read(memory: torch.Tensor) -> None:
    """Reads it once, with all threads."""
    n_bytes = ctypes.c_int64(memory.numel() * memory.element_size())
    pointer, total = ctypes.c_void_p(memory.data_ptr()), ctypes.c_uint64()
    native.check(native.library().circius_read_memory(pointer, n_bytes, native.n_threads(), ctypes.byref(total)))


def measure_decode(dtype: torch.dtype, n_keys: int, n_rounds: int) -> tuple[int, dict[str, float]]:
    """The bytes of the cache, and the seconds to attend to it and to read it."""
    rings = filled_rings(dtype, n_keys)
    parts = [x for x in rings if x is not None]
    query, key, value = (torch.randn(1, heads, HEAD_DIM) for heads in (N_HEADS, N_KV_HEADS, N_KV_HEADS))
    attention = RingAttention(
        [NewTokens(rings, 0, n_keys, 1)], n_heads=N_HEADS, n_kv_heads=N_KV_HEADS, window=n_keys, cache_dtype=dtype,
        workspace=Workspace(),
    )  # fmt: skip

    def attend() -> None:
        for layer in range(N_LAYERS):
            attention(layer, query, key, value)

    seconds = in_turns({"attend": attend, "read": lambda: [read(part) for part in parts]}, n_rounds)
    return sum(part.numel() * part.element_size() for part in parts), seconds


def show_decode(given: argparse.Namespace, console: Console) -> list[dict[str, object]]:
    table = Table("cache", "MiB", "attention ms", "GB/s", "reading once ms", "GB/s", "ratio")
    lines: list[dict[str, object]] = []
    for dtype in CACHE_DTYPES:
        n_bytes, seconds = measure_decode(dtype, given.window, given.rounds * 5)
        name, ratio = str(dtype).removeprefix("torch."), seconds["attend"] / seconds["read"]
        speeds = [f"{1e3 * s:.1f}|{n_bytes / s / 1e9:.1f}".split("|") for s in (seconds["attend"], seconds["read"])]
        table.add_row(name, f"{n_bytes / 2**20:.0f}", *speeds[0], *speeds[1], f"{ratio:.2f}")
        lines.append({"cache": name, "bytes": n_bytes, "attend_s": seconds["attend"], "read_s": seconds["read"]})
    console.print(table)
    return lines


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=16_384)
    parser.add_argument("--window", type=int, default=4_096)
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32", help="of ours")
    parser.add_argument("--peers", nargs="*", choices=["float32", "bfloat16"], default=["float32", "bfloat16"])
    parser.add_argument("--part", choices=["both", "window", "decode"], default="both")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="append the results as JSON lines")
    given = parser.parse_args()
    if not native.available():
        raise CirciusError(native.describe())
    console = Console()
    same = {"isa": native.describe(), "threads": torch.get_num_threads(), "window": given.window}
    with machine.Watch() as watch:
        window = show_window(given, console) if given.part != "decode" else None
        decode = show_decode(given, console) if given.part != "window" else []
    share = watch.foreign_share
    console.print(f"others used {'an unknown share' if share is None else f'{share:.1%}'} of the machine meanwhile")
    if given.out:
        if window is not None:
            own = {"part": "window", "tokens": given.tokens, "dtype": given.dtype}
            roofline.append(given.out, own | same | window | {"foreign_share": share})
        for line in decode:
            roofline.append(given.out, {"part": "decode", "layers": N_LAYERS} | same | line | {"foreign_share": share})


if __name__ == "__main__":
    main()
