"""The demo model here and in transformers (sdpa), same process, same weights, taking turns: pre-fill and decoding.

    python benchmarks/bench_transformers.py [--dtype float32] [--prompt 2048] [--tokens 48] [--rounds 5] [--save]

Prints medians of tokens a second, the ratio, and what they mean: the bandwidth at which decoding reads the weights, the
arithmetic that pre-fill does (two operations a weight and token, attention not counted).
"""

import argparse
import json
import logging
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM

from circius import LLM, SamplingParams
from circius.weights.hub import pull

RESULTS = Path(__file__).parent / "results" / "transformers.jsonl"


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--prompt", type=int, default=2048)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--save", action="store_true", help=f"append the lines to {RESULTS.name}")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    path = pull("demo")
    ours = LLM(path, dtype=given.dtype)
    theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=getattr(torch, given.dtype))
    prompt = list(range(1000, 1000 + given.prompt))
    one = SamplingParams(temperature=0, max_tokens=1)
    many = SamplingParams(temperature=0, max_tokens=given.tokens, ignore_eos=True)

    @torch.inference_mode()
    def their_prefill() -> None:
        theirs(torch.tensor([prompt]), use_cache=True, logits_to_keep=1)

    def their_decode() -> None:
        theirs.generate(
            torch.tensor([prompt[:5]]), max_new_tokens=given.tokens, min_new_tokens=given.tokens, do_sample=False,
            pad_token_id=0,
        )  # fmt: skip

    works = {
        ("pre-fill", "circius"): (given.prompt, lambda: ours.generate([prompt], one)),
        ("pre-fill", "transformers"): (given.prompt, their_prefill),
        ("decode", "circius"): (given.tokens, lambda: ours.generate([prompt[:5]], many)),
        ("decode", "transformers"): (given.tokens, their_decode),
    }
    rates: dict[tuple[str, str], list[float]] = {key: [] for key in works}
    load_before = os.getloadavg()[0]
    for turn in range(given.rounds + 1):
        for key, (n_tokens, work) in works.items():
            taken = seconds(work)
            if turn:  # the first round warms up
                rates[key].append(n_tokens / taken)
    n_weights = ours.config.n_parameters
    table = Table("what", "circius tok/s", "transformers tok/s", "ratio", "circius reaches")
    for what in ("pre-fill", "decode"):
        mine, peer = (statistics.median(rates[what, who]) for who in ("circius", "transformers"))
        reached = {
            "pre-fill": f"{2 * n_weights * mine / 1e9:.0f} GFLOP/s",
            "decode": f"{n_weights * ours.model.dtype.itemsize * mine / 1e9:.1f} GB/s",
        }[what]
        table.add_row(what, f"{mine:.1f}", f"{peer:.1f}", f"{mine / peer:.2f}x", reached)
        if given.save:
            line = {
                "what": what, "dtype": given.dtype, "threads": torch.get_num_threads(), "circius": mine,
                "transformers": peer, "ratio": mine / peer, "reached": reached,
            }  # fmt: skip
            with RESULTS.open("a") as file:
                file.write(json.dumps(line) + "\n")
    Console().print(table)
    print(f"load of the machine before and after: {load_before:.1f}, {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
