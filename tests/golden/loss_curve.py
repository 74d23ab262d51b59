"""Fifty steps of training a tiny model, to the same losses on every machine; `loss_curve.json` keeps them.

    python -m tests.golden.loss_curve

makes them anew, which a change of the numbers on purpose needs, and nothing else. They cover the model with its window,
the packed batches, the loss with its z part, clipping, decay, schedule and both optimisers.
"""

import json
from pathlib import Path
from typing import Literal
from unittest.mock import patch

import torch

from circius.train.batch import IGNORED, Batch
from circius.train.forward import batch_loss
from circius.train.optim import Optimizer, OptimizerConfig
from circius.train.schedule import Schedule
from tests.models import random_model, tiny_config

FILE = Path(__file__).with_suffix(".json")
KINDS: tuple[Literal["adamw", "muon"], ...] = ("adamw", "muon")
N_STEPS = 50
LENGTHS = [40, 7, 23, 23]
VOCAB = 61


def curve(kind: Literal["adamw", "muon"]) -> list[tuple[float, float]]:
    """The mean loss and the gradient norm of each step."""
    with patch(
        "circius.train.muon.multiplies_fast", return_value=False
    ):  # bfloat16, where it is fast, rounds much more
        return _curve(kind)


def _curve(kind: Literal["adamw", "muon"]) -> list[tuple[float, float]]:
    model = random_model(tiny_config(window=6))
    optimizer = Optimizer(model.named_parameters(), OptimizerConfig(kind=kind, lr=0.01))
    schedule = Schedule(kind="wsd", n_steps=N_STEPS, n_warmup=5, n_decay=20, floor=0.1)
    found = []
    for step in range(N_STEPS):
        batches = [_batch(2 * step), _batch(2 * step + 1)]
        n_tokens = sum(batch.n_learnt for batch in batches)
        optimizer.zero_grad()
        nll = 0.0
        for batch in batches:
            loss = batch_loss(model, batch, z_loss=1e-3)
            (loss.total / n_tokens).backward()
            nll += float(loss.nll)
        norm = optimizer.clip(1.0)
        optimizer.step(schedule(step))
        found.append((nll / n_tokens, norm))
    return found


def _batch(seed: int) -> Batch:
    """Rows in which an id says which comes next, but for one in five."""
    generator = torch.Generator().manual_seed(seed)
    rows, targets = [], []
    for length in LENGTHS:
        ids = [int(torch.randint(VOCAB, (), generator=generator))]
        for chance in torch.rand(length - 1, generator=generator).tolist():
            ids.append((5 * ids[-1] + 3 + (0 if chance < 0.8 else int(100 * chance))) % VOCAB)
        rows.append(torch.tensor(ids))
        following = torch.tensor([*ids[1:], IGNORED])
        following[: length // 4] = IGNORED
        targets.append(following)
    return Batch(torch.cat(rows), LENGTHS, torch.cat(targets))


if __name__ == "__main__":
    torch.set_num_threads(1)
    made = {kind: [[round(value, 7) for value in step] for step in curve(kind)] for kind in KINDS}
    FILE.write_text(json.dumps(made, indent=None).replace("]], ", "]],\n ") + "\n", encoding="utf-8")
