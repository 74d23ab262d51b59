"""Tiny runs for tests: a model of bytes, some hundred sentences, steps of milliseconds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from circius.base.config import ModelConfig
from circius.text import load_tokenizer, write_byte_tokenizer
from circius.train.config import CheckpointConfig, EvaluationConfig, RunConfig, SampleConfig, SourceConfig
from circius.train.metrics import METRICS_FILE, read_metrics
from circius.train.optim import OptimizerConfig
from circius.train.prepare import Reading, prepare
from circius.train.recipe import with_settings
from circius.train.run import Finished, train

SHAPE = ModelConfig(
    dim=32,
    n_layers=2,
    head_dim=8,
    hidden_dim=48,
    n_heads=4,
    n_kv_heads=2,
    vocab_size=259,
    context_len=128,
    window_size=16,
)
TIMED = ("seconds", "tokens_per_s", "mfu", "waited", "memory_bytes")
"""Fields of a metrics line that no two runs share."""


def write_data(folder: Path) -> None:
    """A tokenizer of bytes in `folder/tok`, `folder/shards`, a tenth of them held out, `folder/chats.jsonl` and
    `folder/pairs.jsonl`."""
    (folder / "tok").mkdir(parents=True)
    write_byte_tokenizer(folder / "tok")
    texts = [f"Story {n}: the wind {n * 7 % 13} {'sang' if n % 2 else 'slept'} over hill {n % 5}." for n in range(150)]
    lines = (json.dumps({"text": text}) for text in texts)
    (folder / "texts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    chats = (
        {"messages": [{"role": "user", "content": f"Say {n}."}, {"role": "assistant", "content": f"Here: {n}."}]}
        for n in range(40)
    )
    (folder / "chats.jsonl").write_text("\n".join(map(json.dumps, chats)), encoding="utf-8")
    pairs = ({"prompt": f"Say {n}.", "chosen": f"Here: {n}.", "rejected": "No."} for n in range(40))
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)), encoding="utf-8")
    prepare(
        [folder / "texts.jsonl"],
        load_tokenizer(folder / "tok"),
        folder / "shards",
        reading=Reading(holdout=0.1),
    )


def config_of(data: Path, **changes: Any) -> RunConfig:
    """A run of 20 steps over `write_data`'s folder, with a checkpoint every five and an evaluation every ten."""
    config = RunConfig(
        kind="pretrain",
        model=SHAPE,
        tokenizer=str(data / "tok"),
        sources=(SourceConfig(path=str(data / "shards")),),
        seq_len=64,
        batch_tokens=256,
        step_tokens=512,
        n_steps=20,
        optimizer=OptimizerConfig(lr=3e-3),
        evaluation=EvaluationConfig(every=10),
        samples=SampleConfig(),
        checkpoints=CheckpointConfig(every=5),
    )
    return replace(config, **changes)


def run_in(data: Path, run: Path, *settings: str) -> Finished:
    """The run of `config_of` with some settings, in this process."""
    return train(with_settings(config_of(data), settings), run)


def lines_of(run: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """What a run wrote down, without what depends on the clock."""
    lines = read_metrics(run / METRICS_FILE)
    return [
        {name: value for name, value in line.items() if name not in TIMED}
        for line in lines
        if kind in (None, line["kind"])
    ]


def losses_of(run: Path) -> list[float]:
    return [line["loss"] for line in lines_of(run, "train")]


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of an exported model or adapter."""
    from safetensors.torch import load_file

    [file] = folder.glob("*.safetensors")
    return load_file(file)


def same_bits(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def worst(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    """The largest difference of two models' numbers."""
    assert one.keys() == other.keys()
    return max(float((one[name].float() - other[name].float()).abs().max()) for name in one)


def all_close(one: Sequence[float], other: Sequence[float], *, within: float) -> bool:
    return len(one) == len(other) and all(abs(a - b) <= within for a, b in zip(one, other, strict=True))
