"""What two processes do together: `torchrun --nproc-per-node 2 -m tests.unit.train.two_processes DATA OUT`."""

import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from circius.model.adapter import AdapterConfig
from circius.train import reference
from circius.train.config import ParallelConfig, RunConfig, SourceConfig
from circius.train.dpo import pair_log_probs
from circius.train.recipe import with_settings
from circius.train.run import train
from tests.unit.train.runs import config_of

BASE = ("n_steps=6", "checkpoints.every=3", "evaluation.every=3", "schedule.kind=constant", "optimizer.eps=1e-3")


def shared(data: Path, *settings: str, parallel: ParallelConfig | None = None) -> RunConfig:
    """A run of six steps whose every step has two micro-batches."""
    config = with_settings(config_of(data), [*BASE, *settings])
    return config if parallel is None else replace(config, parallel=parallel)


def adapter(data: Path, model: Path) -> RunConfig:
    """An adapter on top of a finished run's model."""
    config = shared(data)
    lora = AdapterConfig(rank=4, alpha=8)
    sources = (SourceConfig(path=str(data / "chats.jsonl")),)
    evaluation = replace(config.evaluation, share=0.1)
    return replace(
        config, kind="finetune", model=str(model), lora=lora, sources=sources, template="v1", evaluation=evaluation
    )


def preferences(data: Path, model: Path) -> RunConfig:
    """All weights of a finished run's model, on pairs of answers."""
    sources = (SourceConfig(path=str(data / "pairs.jsonl")),)
    return replace(shared(data), kind="dpo", model=str(model), sources=sources, template="v1")


def main(data: Path, out: Path, model: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")  # once for all of them
    train(shared(data), out / "copies")
    train(shared(data, "n_steps=3", parallel=ParallelConfig(sharing="shards")), out / "shards")
    train(shared(data, parallel=ParallelConfig(sharing="shards")), out / "grown")
    train(shared(data, "dtype=bfloat16", parallel=ParallelConfig(sharing="shards")), out / "narrow")
    train(shared(data, 'samples.prompts=["The"]', parallel=ParallelConfig(tensor=2)), out / "tensor")
    train(adapter(data, model), out / "adapter")
    asked: list[int] = []
    reference.pair_log_probs = lambda *given: (asked.append(1), pair_log_probs(*given))[1]  # type: ignore[func-returns-value]
    train(preferences(data, model), out / "preferences")
    (out / f"asked-{dist.get_rank()}").write_text(str(len(asked)))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
