"""Preference losses and their gradients by hand, log-probabilities against logits, a reference that is kept."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from circius.base.errors import CheckpointError, ConfigError, InvalidInputError
from circius.model import Transformer
from circius.model.adapter import AdapterConfig
from circius.train.batch import Batch
from circius.train.dpo import (
    Pair,
    PreferenceConfig,
    answer_lengths,
    answer_log_probs,
    pair_batch,
    pair_batches,
    pair_log_probs,
    preference_loss,
)
from circius.train.example import Example
from circius.train.lora import add_lora
from circius.train.optim import Optimizer, OptimizerConfig
from circius.train.reference import fingerprint, reference_log_probs
from tests.models import random_model, tiny_config
from tests.packed import packable_config, packed_model

KINDS = ["sigmoid", "ipo", "hinge"]


def _example(prompt: int, answer: int, seed: int) -> Example:
    ids = np.random.default_rng(seed).integers(0, 61, prompt + answer)
    return Example(ids, np.arange(prompt + answer) >= prompt)


def _pairs(n: int = 4) -> list[Pair]:
    return [(_example(5 + i, 4 + i, 2 * i), _example(5 + i, 9 - i, 2 * i + 1)) for i in range(n)]


def _log_probs(*values: tuple[float, float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (PreferenceConfig(), math.log(2)),
        (PreferenceConfig(beta=7.0, label_smoothing=0.3), math.log(2)),
        (PreferenceConfig(kind="ipo", beta=0.5), 1.0),
        (PreferenceConfig(kind="hinge"), 1.0),
    ],
)
def test_policy_and_reference_alike(config: PreferenceConfig, expected: float) -> None:
    policy = _log_probs((-5.0, -9.0), (-30.0, -2.0))
    found = preference_loss(policy, policy.detach(), config)
    assert float(found.total.detach()) == pytest.approx(2 * expected, rel=1e-12)
    assert (found.n_pairs, float(found.margin), int(found.n_right)) == (2, 0.0, 0)


def test_losses_rewards_and_gradients_by_hand() -> None:
    policy, reference = _log_probs((-4.0, -9.0), (-8.0, -3.0)), _log_probs((-5.0, -8.0), (-6.0, -4.0)).detach()
    margins = [2.0, -3.0]  # (1 - -1), (-2 - 1)
    beta, smoothing = 0.5, 0.2

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    by_hand = {
        "sigmoid": (
            sum(-0.8 * math.log(sigmoid(beta * m)) - 0.2 * math.log(sigmoid(-beta * m)) for m in margins),
            [-0.8 * beta * sigmoid(-beta * m) + 0.2 * beta * sigmoid(beta * m) for m in margins],
        ),
        "ipo": (sum((m - 1) ** 2 for m in margins), [2 * (m - 1) for m in margins]),
        "hinge": (0.0 + 2.5, [0.0, -beta]),
    }
    for kind, (total, slopes) in by_hand.items():
        config = PreferenceConfig(kind=kind, beta=beta, label_smoothing=smoothing if kind == "sigmoid" else 0.0)  # type: ignore[arg-type]
        found = preference_loss(policy, reference, config)
        assert float(found.total.detach()) == pytest.approx(total, rel=1e-9)
        [gradient] = torch.autograd.grad(found.total, policy)
        expected = torch.tensor([[slope, -slope] for slope in slopes], dtype=torch.float64)
        torch.testing.assert_close(gradient, expected, atol=1e-9, rtol=1e-9)
        assert float(found.chosen) == pytest.approx(beta * (1 - 2))
        assert float(found.rejected) == pytest.approx(beta * (-1 + 1))
        assert float(found.margin) == pytest.approx(beta * -1)
        assert int(found.n_right) == 1


def test_means_divide_by_the_answers_lengths() -> None:
    policy, reference = _log_probs((-4.0, -9.0)), _log_probs((-5.0, -8.0)).detach()
    found = preference_loss(
        policy, reference, PreferenceConfig(kind="ipo", beta=1.0, is_mean=True), n_tokens=torch.tensor([[2, 4]])
    )
    assert float(found.total.detach()) == pytest.approx((0.5 + 0.25 - 0.5) ** 2)
    with pytest.raises(InvalidInputError, match="number of tokens"):
        preference_loss(policy, reference, PreferenceConfig(is_mean=True))


@pytest.mark.parametrize("tied", [False, True])
def test_log_probabilities_are_those_of_the_logits(tied: bool) -> None:
    model, batch = random_model(tiny_config(tied=tied)), pair_batch(_pairs())
    found = answer_log_probs(model, batch)
    assert found.dtype == torch.float32
    log_probs = model(batch.tokens, batch.lengths).log_softmax(-1)
    learnt = batch.targets >= 0
    each = torch.zeros(len(batch.tokens)).masked_scatter(
        learnt, log_probs[learnt].gather(1, batch.targets[learnt, None]).squeeze(1)
    )
    expected = torch.stack([part.sum() for part in each.split(batch.lengths)])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)
    weights = torch.randn(len(expected))
    parameters = list(model.parameters())
    mine = torch.autograd.grad(found @ weights, parameters)
    theirs = torch.autograd.grad(expected @ weights, parameters)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    assert answer_lengths(batch).tolist() == [[4, 9], [5, 8], [6, 7], [7, 6]]


def _train(model: Transformer, pairs: list[Pair], reference: Tensor, config: PreferenceConfig) -> list[float]:
    optimizer = Optimizer(model.named_parameters(), OptimizerConfig(lr=0.01, weight_decay=0.0))
    batch, losses = pair_batch(pairs), []
    for _ in range(12):
        optimizer.zero_grad()
        found = preference_loss(pair_log_probs(model, batch), reference, config, n_tokens=answer_lengths(batch))
        losses.append(float(found.total.detach()) / found.n_pairs)
        (found.total / found.n_pairs).backward()
        optimizer.step()
    assert int(found.n_right) == len(pairs)
    return losses


@pytest.mark.parametrize("kind", KINDS)
def test_training_an_adapter_needs_no_second_model(kind: str) -> None:
    model, pairs = random_model(tiny_config()), _pairs()
    add_lora(model, AdapterConfig(rank=4, alpha=8, dropout=0.1))
    reference = reference_log_probs(model, pairs, batch_tokens=40)
    losses = _train(model, pairs, reference, PreferenceConfig(kind=kind, beta=0.1))  # type: ignore[arg-type]
    start = {"sigmoid": math.log(2), "ipo": 25.0, "hinge": 1.0}[kind]
    assert losses[0] == pytest.approx(start, abs=1e-4)
    assert losses[-1] < losses[0] / 2
    again = reference_log_probs(model, pairs, batch_tokens=1000)
    torch.testing.assert_close(again, reference, atol=1e-4, rtol=1e-5)


def test_beside_packed_weights_it_begins_at_ln_2() -> None:
    """The policy runs with gradients and the reference without: other kernels, the same unrounded inputs."""
    model, pairs = packed_model(packable_config()), _pairs()
    add_lora(model, AdapterConfig(rank=4, alpha=8))
    reference = reference_log_probs(model, pairs, batch_tokens=60)
    assert _train(model, pairs, reference, PreferenceConfig())[0] == pytest.approx(math.log(2), abs=1e-5)


def test_the_reference_is_kept_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, pairs = random_model(tiny_config()), _pairs()
    shown: list[tuple[int, int]] = []
    first = reference_log_probs(
        model, pairs, batch_tokens=40, folder=tmp_path, on_progress=lambda *so_far: shown.append(so_far)
    )
    assert first.shape == (4, 2)
    assert shown[-1] == (4, 4)
    [file] = tmp_path.iterdir()
    add_lora(model, AdapterConfig(rank=2, alpha=2))  # adds nothing to what the reference is
    monkeypatch.setattr("circius.train.reference.pair_log_probs", None)
    assert reference_log_probs(model, pairs, batch_tokens=99, folder=tmp_path).equal(first)
    file.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="delete it, and it is made again"):
        reference_log_probs(model, pairs, batch_tokens=40, folder=tmp_path)


def test_other_weights_and_other_pairs_have_other_names() -> None:
    model, pairs = random_model(tiny_config()), _pairs()
    names = {fingerprint(model, pairs), fingerprint(model, pairs[:3]), fingerprint(model, [p[::-1] for p in pairs])}
    chosen, rejected = pairs[0]
    unlearnt = Example(chosen.ids, chosen.learnt & (np.arange(len(chosen)) > 6))
    names.add(fingerprint(model, [(unlearnt, rejected), *pairs[1:]]))
    names.add(fingerprint(random_model(tiny_config(window=6)), pairs))
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] += 1e-3  # type: ignore[union-attr, operator, index]
    names.add(fingerprint(model, pairs))
    assert len(names) == 6
    assert fingerprint(random_model(tiny_config()), pairs) in names


def test_batches_hold_whole_pairs_in_order() -> None:
    pairs = _pairs(6)
    batches = list(pair_batches(pairs, 60))
    assert all(len(batch.tokens) <= 60 or len(batch.lengths) == 2 for batch in batches)
    assert len(batches) > 1
    together = Batch.of([example for pair in pairs for example in pair])
    assert torch.cat([batch.tokens for batch in batches]).equal(together.tokens)
    assert [len(batch.lengths) for batch in pair_batches(pairs, 1)] == [2] * 6


def test_an_answer_of_nothing_is_refused() -> None:
    empty = Example(np.arange(5), np.zeros(5, dtype=bool))
    with pytest.raises(InvalidInputError, match="the rejected answer of pair 1 has no token that is learnt"):
        pair_batch([*_pairs(1), (_example(2, 2, 0), empty)])
    with pytest.raises(InvalidInputError, match="the chosen answer of pair 3"):
        list(pair_batches([*_pairs(3), (empty, _example(2, 2, 0))], 30))


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="sigmoid, ipo, hinge, got 'kto'"):
        PreferenceConfig(kind="kto")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="beta must be above 0, got 0"):
        PreferenceConfig(beta=0)
    with pytest.raises(ConfigError, match=r"below 0.5, got 0.5"):
        PreferenceConfig(label_smoothing=0.5)
    with pytest.raises(ConfigError, match="hinge has no use for it"):
        PreferenceConfig(kind="hinge", label_smoothing=0.1)
    with pytest.raises(InvalidInputError, match=r"\(pairs, 2\) .* got \(3,\) and \(3,\)"):
        preference_loss(torch.zeros(3), torch.zeros(3), PreferenceConfig())
