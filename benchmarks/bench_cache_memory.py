"""The memory of the rolling buffer cache, measured on real allocations of the true Mistral 7B v0.1 shape in bf16.

    python benchmarks/bench_cache_memory.py [--lengths 8192 16384 32768 131072] [--save]

For each length, one sequence's cache is allocated and every page of it written, each in a process of its own: ours with
the window, ours without it, and transformers' DynamicCache for the same model as the peer. Printed are the bytes the
cache says it holds, and by how much the process really grew. The paper claims a half at 8k and an eighth at 32k.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results" / "cache_memory.jsonl"
KINDS = ("rolling", "full", "transformers")
MIB = 2**20


@dataclass(frozen=True)
class Measured:
    kind: str
    n_tokens: int
    cache_bytes: int
    grown_bytes: int


def resident_bytes() -> int:
    """The resident memory of this process, from the kernel."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def measure(kind: str, n_tokens: int) -> Measured:
    """Allocates and fills one cache in this process."""
    import torch

    from circius.base.config import PRESETS
    from circius.model import RollingCache

    config = PRESETS["v0.1"]
    if kind == "transformers":
        from transformers import DynamicCache, MistralConfig

        peer = MistralConfig(sliding_window=config.window_size, num_hidden_layers=config.n_layers)
        before = resident_bytes()
        theirs: Any = DynamicCache(config=peer)
        # The last token comes alone, as in decoding: only then does the peer let go of a prompt given as one.
        for n_new in (n_tokens - 1, 1):
            for layer in range(config.n_layers):
                key, value = torch.ones(2, 1, config.n_kv_heads, n_new, config.head_dim, dtype=torch.bfloat16)
                theirs.update(key, value, layer)
        held = sum(x.numel() * x.element_size() for layer in theirs.layers for x in (layer.keys, layer.values))
        return Measured(kind, n_tokens, held, resident_bytes() - before)
    if kind == "full":
        config = replace(config, window_size=None)
    before = resident_bytes()
    cache = RollingCache(config, [n_tokens], dtype=torch.bfloat16, device="cpu")
    cache.touch()
    return Measured(kind, n_tokens, cache.n_bytes, resident_bytes() - before)


def measure_apart(kind: str, n_tokens: int) -> Measured:
    """`measure` in a fresh process, so that nothing freed before it can be counted or reused."""
    command = [sys.executable, __file__, "--one", kind, str(n_tokens)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return Measured(**json.loads(run.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[8_192, 16_384, 32_768, 131_072])
    parser.add_argument("--save", action="store_true", help=f"append the lines to {RESULTS.name}")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(asdict(measure(given.one[0], int(given.one[1])))))
        return
    table = Table("tokens", "rolling MiB (grown)", "full MiB (grown)", "transformers MiB (grown)", "full / rolling")
    for n_tokens in given.lengths:
        found = {kind: measure_apart(kind, n_tokens) for kind in KINDS}
        cells = [f"{m.cache_bytes / MIB:,.0f} ({m.grown_bytes / MIB:,.0f})" for m in found.values()]
        ratio = found["full"].cache_bytes / found["rolling"].cache_bytes
        table.add_row(f"{n_tokens:,}", *cells, f"{ratio:g}x")
        if given.save:
            with RESULTS.open("a") as file:
                file.writelines(json.dumps(asdict(m)) + "\n" for m in found.values())
    Console().print(table)


if __name__ == "__main__":
    main()
