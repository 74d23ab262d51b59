"""A training step here and with transformers (and PEFT for LoRA): tokens a second, FLOP use, and peak memory.

    python benchmarks/bench_train_step.py [--case demo-full ...] [--rounds 5] [--save]

Each side is a process of its own, so that its peak memory is its own; they take steps in turn on the same tokens, and
medians are compared. Both train in float32 with AdamW. Rows are full of learnt tokens ("text"), or conversations of
uneven length of which the answers are learnt ("chat"), which transformers pads to the longest as its collators do. The
first losses are printed beside each other: they are of the same model and must agree.

MFU counts six operations for each weight and real token (four where weights are frozen), head included for all real
tokens and attention not, against what plain float32 products reach on this machine.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results" / "train_step.jsonl"
RANK = 16
CASES = {
    "demo-full": ("demo", False, "text", 4, 512),
    "demo-full-chat": ("demo", False, "chat", 8, 512),
    "demo-lora": ("demo", True, "text", 4, 512),
    "demo-lora-chat": ("demo", True, "chat", 8, 512),
    "demo-full-2048": ("demo", False, "text", 1, 2048),
    "slice-lora": ("slice", True, "text", 1, 1024),
}
"""Model, LoRA or everything, kind of rows, how many, and their (longest) length."""
Rows = list[tuple[list[int], int]]
"""Ids, and from which of them on they are learnt."""
Step = Callable[[], float]


def rows_of(kind: str, n_rows: int, length: int, vocab_size: int) -> Rows:
    own = random.Random(0)
    made = []
    for _ in range(n_rows):
        n = length if kind == "text" else own.randint(length // 8, length)
        ids = [own.randrange(10, vocab_size) for _ in range(n)]
        made.append((ids, 1 if kind == "text" else own.randint(n // 3, 3 * n // 4)))
    return made


def circius_step(model_name: str, is_lora: bool, rows_kind: str, n_rows: int, length: int) -> tuple[Step, int, int]:
    import numpy as np

    from circius.train.batch import Batch
    from circius.train.example import Example
    from circius.train.forward import batch_loss
    from circius.train.optim import Optimizer, OptimizerConfig

    if model_name == "demo":
        from circius import LLM

        model = LLM("demo", dtype="float32").model
    else:
        from circius.base.config import PRESETS
        from circius.model import Transformer

        torch.manual_seed(0)
        model = Transformer(replace(PRESETS["v0.1"], n_layers=2))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.02)
    n_weights = model.config.n_parameters
    model.requires_grad_(True)
    if is_lora:
        from circius.model.adapter import AdapterConfig
        from circius.train.lora import add_lora

        add_lora(model, AdapterConfig(rank=RANK, alpha=2 * RANK))
    rows = rows_of(rows_kind, n_rows, length, model.config.vocab_size)
    batch = Batch.of(
        [Example(np.array(ids), np.arange(len(ids)) >= begin) for ids, begin in rows]  # the first is never predicted
    )
    optimizer = Optimizer(model.named_parameters(), OptimizerConfig(lr=1e-5))

    def step() -> float:
        loss = batch_loss(model, batch)
        mean = loss.total / loss.n_tokens
        mean.backward()
        optimizer.clip(1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(mean.detach())

    return step, sum(batch.lengths), n_weights


def transformers_step(
    model_name: str, is_lora: bool, rows_kind: str, n_rows: int, length: int
) -> tuple[Step, int, int]:
    from transformers import AutoModelForCausalLM, MistralConfig, MistralForCausalLM

    if model_name == "demo":
        from circius.weights.hub import pull

        path = pull("demo")
        model: Any = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    else:
        torch.manual_seed(0)
        model = MistralForCausalLM(MistralConfig(num_hidden_layers=2, attn_implementation="sdpa"))
    n_weights = sum(parameter.numel() for parameter in model.parameters())
    if is_lora:
        from peft import LoraConfig, get_peft_model

        linears = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=linears))
    model.train()
    rows = rows_of(rows_kind, n_rows, length, model.config.vocab_size)
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids, _ in rows])
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in rows])
    labels = torch.tensor([[-100] * begin + ids[begin:] + [-100] * (longest - len(ids)) for ids, begin in rows])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def step() -> float:
        loss = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step, sum(len(ids) for ids, _ in rows), n_weights


def peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) * 1024


def forget_peak() -> None:
    """Loading is not what is measured: the peak begins anew from what is held now."""
    Path("/proc/self/clear_refs").write_text("5")


def work(who: str, case: str) -> None:
    """A child: a step for every line that comes in."""
    make = circius_step if who == "circius" else transformers_step
    step, n_tokens, n_weights = make(*CASES[case])
    forget_peak()
    print(json.dumps({"n_tokens": n_tokens, "n_weights": n_weights}), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        loss = step()
        print(json.dumps({"s": time.perf_counter() - began, "loss": loss, "peak": peak_bytes()}), flush=True)


class Child:
    def __init__(self, who: str, case: str) -> None:
        command = [sys.executable, __file__, "--worker", who, "--case", case]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise SystemExit("a process ended before its time; its error is above")

    def step(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        return self._answer()

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def product_flops() -> float:
    """What a plain float32 product reaches: the ceiling here."""
    a, b = torch.randn(1024, 2048), torch.randn(2048, 2048)
    times = []
    for _ in range(8):
        began = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - began)
    return 2 * 1024 * 2048 * 2048 / min(times)


def measure(case: str, rounds: int) -> dict[str, Any]:
    children = {who: Child(who, case) for who in ("circius", "transformers")}
    seconds: dict[str, list[float]] = {who: [] for who in children}
    first, peak = {}, {}
    for turn in range(rounds + 1):
        for who, child in children.items():
            answer = child.step()
            first.setdefault(who, answer["loss"])
            peak[who] = answer["peak"]
            if turn:  # the first warms up
                seconds[who].append(answer["s"])
    for child in children.values():
        child.end()
    about = children["circius"].about
    operations = (4 if CASES[case][1] else 6) * about["n_weights"] * about["n_tokens"]
    median = {who: statistics.median(own) for who, own in seconds.items()}
    return {
        "case": case,
        "tokens": about["n_tokens"],
        **{f"{who} tok/s": about["n_tokens"] / median[who] for who in children},
        "speed ratio": median["transformers"] / median["circius"],
        **{f"{who} peak GB": peak[who] / 1e9 for who in children},
        "memory ratio": peak["circius"] / peak["transformers"],
        **{f"{who} GFLOP/s": operations / median[who] / 1e9 for who in children},
        "product GFLOP/s": product_flops() / 1e9,
        **{f"{who} first loss": first[who] for who in children},
        "rounds": rounds,
        "load": os.getloadavg()[0],
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=list(CASES), nargs="+", default=list(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--save", action="store_true", help=f"append the lines to {RESULTS.name}")
    parser.add_argument("--worker", choices=["circius", "transformers"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given.worker, given.case[0])
        return
    table = Table("case", "tok/s", "transformers", "ratio", "peak GB", "transformers", "ratio", "MFU", "first losses")
    for case in given.case:
        line = measure(case, given.rounds)
        table.add_row(
            case,
            f"{line['circius tok/s']:.0f}",
            f"{line['transformers tok/s']:.0f}",
            f"{line['speed ratio']:.2f}",
            f"{line['circius peak GB']:.2f}",
            f"{line['transformers peak GB']:.2f}",
            f"{line['memory ratio']:.2f}",
            f"{line['circius GFLOP/s'] / line['product GFLOP/s']:.0%}",
            f"{line['circius first loss']:.4f} {line['transformers first loss']:.4f}",
        )
        if given.save:
            with RESULTS.open("a") as file:
                file.write(
                    json.dumps({key: round(v, 4) if isinstance(v, float) else v for key, v in line.items()}) + "\n"
                )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
