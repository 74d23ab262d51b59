"""Training against transformers' MistralForCausalLM with the weights copied: packed batches, masks, several steps."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from transformers import LlamaForCausalLM, MistralForCausalLM

from circius.train.batch import IGNORED, Batch
from circius.train.forward import batch_loss, recompute_blocks
from circius.train.optim import Optimizer, OptimizerConfig
from tests.models import random_model, random_tokens, tiny_config
from tests.parity.test_transformers import _peer

WINDOW = 7
LENGTHS = [WINDOW - 1, 3 * WINDOW, 1, WINDOW, 2 * WINDOW + 3]


def _batch(seed: int = 0) -> Batch:
    """Examples of which a part of the ids is learnt, as in a conversation."""
    targets = []
    generator = torch.Generator().manual_seed(seed)
    tokens = random_tokens(sum(LENGTHS), seed=seed)
    for part in tokens.split(LENGTHS):
        following = torch.cat((part[1:], torch.tensor([IGNORED])))
        following[torch.rand(len(part), generator=generator) < 0.3] = IGNORED
        targets.append(following)
    return Batch(tokens, LENGTHS, torch.cat(targets))


def _their_loss(peer: MistralForCausalLM | LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """The sum over examples, each alone in a forward of its own."""
    total = torch.zeros(())
    for tokens, targets in zip(batch.tokens.split(LENGTHS), batch.targets.split(LENGTHS), strict=True):
        logits = peer(tokens[None]).logits[0]
        total = total + F.cross_entropy(logits, targets, reduction="sum", ignore_index=IGNORED)
    return total


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(("window", "tied"), [(WINDOW, False), (WINDOW, True), (None, False)])
def test_gradients_of_a_packed_batch_equal(window: int | None, tied: bool, recompute: bool) -> None:
    config, batch = tiny_config(window=window, tied=tied), _batch()
    ours = random_model(config)
    peer = _peer(config, ours)
    recompute_blocks(ours, recompute)
    loss = batch_loss(ours, batch)
    expected = _their_loss(peer, batch)
    torch.testing.assert_close(loss.total, expected, rtol=1e-6, atol=1e-4)
    (loss.total / loss.n_tokens).backward()
    (expected / loss.n_tokens).backward()
    theirs = dict(peer.named_parameters())
    for name, own in ours.named_parameters():
        assert own.grad is not None, name
        torch.testing.assert_close(own.grad, theirs[name].grad, atol=1e-6, rtol=1e-4, msg=name)


def test_ten_steps_of_adamw_leave_the_same_weights() -> None:
    """Micro-batches, clipping, decay and all; what differs after ten steps is rounding."""
    config = tiny_config(window=WINDOW)
    ours = random_model(config)
    peer = _peer(config, ours).train()
    optimizer = Optimizer(ours.named_parameters(), OptimizerConfig(lr=3e-3))
    groups = [[own for own in peer.parameters() if own.ndim == n] for n in (2, 1)]
    theirs = torch.optim.AdamW(
        [{"params": groups[0]}, {"params": groups[1], "weight_decay": 0.0}],
        lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1,
    )  # fmt: skip
    for step in range(10):
        batches = [_batch(2 * step), _batch(2 * step + 1)]
        n_tokens = sum(batch.n_learnt for batch in batches)
        optimizer.zero_grad()
        theirs.zero_grad()
        for batch in batches:
            (batch_loss(ours, batch).total / n_tokens).backward()
            (_their_loss(peer, batch) / n_tokens).backward()
        mine = optimizer.clip(0.5)
        assert mine == pytest.approx(float(torch.nn.utils.clip_grad_norm_(peer.parameters(), 0.5)), rel=1e-4)
        optimizer.step()
        theirs.step()
    start = dict(random_model(config).named_parameters())
    their_weights = dict(peer.named_parameters())
    for name, own in ours.named_parameters():
        moved = float((their_weights[name] - start[name]).detach().norm())
        assert moved > 0
        assert float((own - their_weights[name]).detach().norm()) < 0.01 * moved, name
