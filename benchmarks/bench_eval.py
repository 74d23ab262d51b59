"""Items a second here and in lm-eval with transformers behind it: same process, same weights, same questions, taking
turns.

    python benchmarks/bench_eval.py [--task hellaswag] [--items 64] [--batch 8] [--rounds 5] [--data FOLDER] [--save]

The demo model in float32, its log-likelihoods of the choices and nothing else: no unconditional ones, no prompts made,
no file written. Both must agree before anything is timed. lm-eval computes each choice with its whole context, padded
to the longest of its batch; here what contexts share is computed once, and nothing is padded. `--batch` is lm-eval's;
try several, for the best of them is the one to compare with. Needs the extra `eval`, and data (`circius data eval`).
"""

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from rich.console import Console
from rich.table import Table

from circius import LLM
from circius.cli.main import run
from circius.engine.machine import Watch, is_disturbed, processor_name
from circius.evals.engine_model import EngineModel
from circius.evals.item import Choices
from circius.evals.questions import Exam
from circius.evals.task import Sources
from circius.evals.tasks import make_task
from circius.evals.tasks.settings import Settings
from circius.weights.hub import pull

RESULTS = Path(__file__).parent / "results" / "eval.jsonl"


def questions(task: str, n: int, data: Path | None) -> list[Choices]:
    """The first question about each of `n` items, without its unconditional half."""
    exam = Exam.of(make_task(task, Settings(samples=0)), Sources(home=data), limit=n)
    asks = [exam.question(item).asks[0] for item in exam.items]
    return [replace(ask, unconditional=None) for ask in asks if isinstance(ask, Choices)]


def instances(asks: Sequence[Choices]) -> list[Any]:
    pairs = [pair for ask in asks for pair in zip(ask.contexts, ask.continuations, strict=True)]
    return [Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=0) for pair in pairs]


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="hellaswag")
    parser.add_argument("--items", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--save", action="store_true", help=f"append the line to {RESULTS.name}")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "demo"
        run(["convert", str(pull("demo")), str(folder), "--to=hf", "--dtype=float32", "--quiet"])
        ours = EngineModel(LLM(folder, dtype="float32"))
        theirs = HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=given.batch)
    asks = questions(given.task, given.items, given.data)
    requests = instances(asks)

    own = [logprob for answer in ours.loglikelihoods(asks) for logprob in answer.logprobs]
    peer = [logprob for logprob, _ in theirs.loglikelihood(requests, disable_tqdm=True)]
    worst = max(abs(a - b) / abs(b) for a, b in zip(own, peer, strict=True))
    if worst > 1e-3:
        raise SystemExit(f"the log-likelihoods differ by {worst:.1e}: nothing to compare")
    forwarded = ours.n_forwarded
    taken: dict[str, list[float]] = {"circius": [], "lm-eval + transformers": []}
    with Watch() as watch:
        for _ in range(given.rounds):
            taken["circius"].append(seconds(lambda: ours.loglikelihoods(asks)))
            taken["lm-eval + transformers"].append(seconds(lambda: theirs.loglikelihood(requests, disable_tqdm=True)))
    rates = {name: len(asks) / statistics.median(times) for name, times in taken.items()}

    table = Table("", "items a second", "slowest", "fastest", title=f"{given.task}, {len(asks)} items, float32")
    for name, times in taken.items():
        table.add_row(name, f"{rates[name]:.2f}", f"{len(asks) / max(times):.2f}", f"{len(asks) / min(times):.2f}")
    Console().print(table)
    ratio = rates["circius"] / rates["lm-eval + transformers"]
    n_tokens = sum(len(theirs.tok_encode("".join(request.args))) for request in requests)
    print(f"{ratio:.2f} times as many; {forwarded} tokens computed here, {n_tokens} without sharing; worst {worst:.1e}")
    if is_disturbed(watch.foreign_share):
        print(f"others used {watch.foreign_share:.0%} of the machine: measure again")
    if given.save:
        line = {
            "task": given.task, "items": len(asks), "batch": given.batch, "rounds": given.rounds, "rates": rates,
            "seconds": taken, "worst": worst, "tokens": [forwarded, n_tokens], "threads": torch.get_num_threads(),
            "processor": processor_name(), "torch": torch.__version__, "foreign_share": watch.foreign_share,
        }  # fmt: skip
        with RESULTS.open("a") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
