"""Groups, steps against torch's own, master copies, and states that go on to the last bit."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from circius.base.errors import CheckpointError, CirciusError, ConfigError, InvalidInputError
from circius.model import Transformer
from circius.train.forward import batch_loss
from circius.train.gradients import clip_gradients
from circius.train.optim import Optimizer, OptimizerConfig, make_groups
from tests.models import random_model, tiny_config
from tests.unit.train.test_forward import _batch

KINDS = ["adamw", "muon", "adamw8bit"]


def _config(kind: Any = "adamw", **more: Any) -> OptimizerConfig:
    if kind == "adamw8bit":
        pytest.importorskip("bitsandbytes")
    return OptimizerConfig(kind=kind, lr=0.01, **more)


def _model(kind: str, seed: int = 0) -> Transformer:
    """Large enough for 8 bits, which bitsandbytes gives to no tensor of fewer than 4096 numbers."""
    return random_model(tiny_config(vocab_size=160 if kind == "adamw8bit" else 61), seed)


def _train(model: Transformer, optimizer: Optimizer, steps: range) -> list[float]:
    losses = []
    for step in steps:
        optimizer.zero_grad()
        for part in range(2):
            loss = batch_loss(model, _batch([20, 11], seed=10 * step + part))
            (loss.total / 40).backward()
            losses.append(float(loss.total.detach()))
        optimizer.clip(1.0)
        optimizer.step(1 / (step + 1))
    return losses


def test_groups_by_hand() -> None:
    model = random_model(tiny_config())
    groups = make_groups(dict(model.named_parameters()), _config("muon", muon_lr=0.5, embedding_lr=0.2))
    found = {(group.lr, group.weight_decay, group.is_muon): set(group.parameters) for group in groups}
    norms = {name for name, _ in model.named_parameters() if "norm" in name}
    layers = {name for name, _ in model.named_parameters() if ".layers." in name}
    assert found == {
        (0.5, 0.1, True): layers - norms,
        (0.2, 0.1, False): {"model.embed_tokens.weight"},
        (0.01, 0.1, False): {"lm_head.weight"},
        (0.01, 0.0, False): norms,
    }
    plain = make_groups(dict(model.named_parameters()), _config())
    assert not any(group.is_muon for group in plain)
    assert sum(len(group.parameters) for group in plain) == len(list(model.named_parameters()))
    assert {group.weight_decay for group in plain for name in group.parameters if name in norms} == {0.0}


def test_steps_are_those_of_torchs_adamw() -> None:
    mine, theirs = random_model(tiny_config()), random_model(tiny_config())
    optimizer = Optimizer(mine.named_parameters(), _config())
    matrices = [own for own in theirs.parameters() if own.ndim == 2]
    vectors = [own for own in theirs.parameters() if own.ndim == 1]
    peer = torch.optim.AdamW([{"params": matrices}, {"params": vectors, "weight_decay": 0.0}], lr=0.01,
                             betas=(0.9, 0.95), weight_decay=0.1)  # fmt: skip
    for step in range(4):
        optimizer.zero_grad()
        peer.zero_grad()
        for model in (mine, theirs):
            (batch_loss(model, _batch([30], seed=step)).total / 30).backward()
        optimizer.step(0.5)
        for group in peer.param_groups:
            group["lr"] = 0.005
        peer.step()
    assert optimizer.n_steps == 4
    for (name, a), b in zip(mine.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6, msg=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_a_state_put_down_and_taken_up_goes_on_to_the_last_bit(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    straight = _model(kind).to(dtype)
    optimizer = Optimizer(straight.named_parameters(), _config(kind))
    _train(straight, optimizer, range(3))
    save_file({name: x.clone() for name, x in optimizer.state_dict().items()}, tmp_path / "state.safetensors")
    save_file({name: x.clone() for name, x in straight.state_dict().items()}, tmp_path / "model.safetensors")
    losses = _train(straight, optimizer, range(3, 6))

    resumed = _model(kind, seed=5).to(dtype)
    resumed.load_state_dict(load_file(tmp_path / "model.safetensors"))
    again = Optimizer(resumed.named_parameters(), _config(kind))
    again.load_state_dict(load_file(tmp_path / "state.safetensors"))
    assert again.n_steps == 3
    assert _train(resumed, again, range(3, 6)) == losses
    for name, tensor in straight.state_dict().items():
        assert tensor.equal(resumed.state_dict()[name]), name
    mine, theirs = optimizer.state_dict(), again.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(mine[name].equal(theirs[name]) for name in mine)
    assert any(x.dtype == torch.uint8 for x in mine.values()) == (kind == "adamw8bit")


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_state_is_that_of_no_steps(kind: str) -> None:
    """Memory is laid out at once; filled in place, as a checkpoint is read, it counts."""
    model = _model(kind)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    optimizer = Optimizer(model.named_parameters(), _config(kind))
    assert all(x.equal(before[name]) for name, x in model.state_dict().items())
    assert all(own.grad is None for own in model.parameters())
    state = optimizer.state_dict()
    assert optimizer.n_steps == 0
    assert len(state) > len(before)
    state["n_steps"].fill_(7)
    optimizer.load_state_dict(state)
    assert optimizer.n_steps == 7


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_falls(kind: str) -> None:
    model = _model(kind)
    optimizer = Optimizer(model.named_parameters(), _config(kind))
    batch, losses = _batch([30, 20]), []
    for _ in range(30):
        optimizer.zero_grad()
        loss = batch_loss(model, batch)
        losses.append(float(loss.total.detach()) / loss.n_tokens)
        (loss.total / loss.n_tokens).backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 3


def test_masters_keep_what_bfloat16_would_lose() -> None:
    """A hundred steps of a 1000th of a weight each; a hundred gradients of which each is lost beside their sum."""
    weight = torch.nn.Parameter(torch.ones(2, 2, dtype=torch.bfloat16))
    optimizer = Optimizer([("w", weight)], OptimizerConfig(lr=1e-3, weight_decay=0.0))
    for _ in range(100):
        optimizer.zero_grad()
        weight.sum().backward()
        assert weight.grad is None
        optimizer.step()
    assert float(weight.detach()[0, 0]) == pytest.approx(0.9, abs=0.004)
    optimizer.zero_grad()
    for share in [256.0] + [0.5] * 100:
        (weight.sum() * share).backward()
    assert optimizer.clip(None) == pytest.approx(2 * (256 + 50))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_can_be_added_to_in_place_by_other_processes(dtype: torch.dtype) -> None:
    model = random_model(tiny_config()).to(dtype)
    optimizer = Optimizer(model.named_parameters(), _config())
    zeros = optimizer.gradients()
    assert len(zeros) == len(list(model.parameters()))
    assert not any(gradient.any() for gradient in zeros)
    batch_loss(model, _batch([20])).total.backward()
    gradients = optimizer.gradients()
    assert all(gradient.any() and gradient.dtype == torch.float32 for gradient in gradients)
    norm = optimizer.clip(None)
    for gradient in gradients:
        gradient *= 2
    assert optimizer.clip(None) == pytest.approx(2 * norm)


def test_the_model_gets_the_roundings_of_its_masters() -> None:
    model = random_model(tiny_config()).to(torch.bfloat16)
    optimizer = Optimizer(model.named_parameters(), _config())
    _train(model, optimizer, range(2))
    state = optimizer.state_dict()
    for name, own in model.named_parameters():
        master = state[f"master.{name}"]
        assert master.dtype == torch.float32
        assert own.equal(master.bfloat16())
        assert not master.equal(own.float())


def test_what_is_frozen_stays() -> None:
    model = random_model(tiny_config())
    model.model.embed_tokens.requires_grad_(False)
    before = model.model.embed_tokens.weight.clone()
    optimizer = Optimizer(model.named_parameters(), _config("adamw", weight_decay=0.5))
    _train(model, optimizer, range(2))
    assert model.model.embed_tokens.weight.equal(before)
    with pytest.raises(InvalidInputError, match="nothing to train"):
        Optimizer(random_model(tiny_config()).requires_grad_(False).named_parameters(), _config())


def test_a_step_without_a_gradient_is_refused() -> None:
    model = random_model(tiny_config())
    optimizer = Optimizer(model.named_parameters(), _config())
    with pytest.raises(InvalidInputError, match=r"model.embed_tokens.weight has no gradient"):
        optimizer.step()


def test_another_optimisers_state_is_refused() -> None:
    models = [random_model(tiny_config()) for _ in range(2)]
    adam = Optimizer(models[0].named_parameters(), _config("adamw"))
    muon = Optimizer(models[1].named_parameters(), _config("muon"))
    with pytest.raises(CheckpointError, match=r"does not fit this muon over 21 parameters: .* entries differ"):
        muon.load_state_dict(adam.state_dict())
    narrow = Optimizer(random_model(tiny_config(n_kv_heads=1)).named_parameters(), _config())
    with pytest.raises(CheckpointError, match=r"k_proj.weight is \(8, 32\) of torch.float32, its state has \(16, 32\)"):
        narrow.load_state_dict(adam.state_dict())


def test_without_bitsandbytes_there_are_no_8_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"no module named {name}")

    monkeypatch.setattr("circius.train.optim.import_module", missing)
    with pytest.raises(CirciusError, match="pip install bitsandbytes, or choose adamw"):
        Optimizer(random_model(tiny_config()).named_parameters(), OptimizerConfig(lr=0.1, kind="adamw8bit"))


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"kind": "sgd"}, "an optimiser is adamw, muon, adamw8bit, got 'sgd'"),
        ({"lr": -1.0}, "lr must be 0 or more, got -1.0"),
        ({"lr": math.inf}, "lr must be 0 or more, got inf"),
        ({"eps": 0.0}, "eps must be above 0"),
        ({"betas": (0.9, 1.0)}, "betas must be at least 0 and below 1, got 1.0"),
        ({"muon_lr": 0.1}, "muon_lr is for kind 'muon', the kind is 'adamw'"),
    ],
)
def test_settings_out_of_range_are_refused(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        OptimizerConfig(**{"lr": 0.1, **given})


def _with_gradients(*values: list[float]) -> list[torch.Tensor]:
    made = []
    for own in values:
        made.append(torch.zeros(len(own)))
        made[-1].grad = torch.tensor(own)
    return made


def test_clipping_by_hand() -> None:
    parameters = _with_gradients([3.0, 0.0], [0.0, 4.0, 12.0])
    assert clip_gradients(parameters, None) == pytest.approx(13)
    assert clip_gradients(parameters, 20.0) == pytest.approx(13)
    assert parameters[0].grad.tolist() == [3, 0]  # type: ignore[union-attr]
    assert clip_gradients(parameters, 1.3) == pytest.approx(13)
    assert parameters[1].grad.tolist() == pytest.approx([0, 0.4, 1.2], rel=1e-5)  # type: ignore[union-attr]
    with pytest.raises(InvalidInputError, match="above 0, got 0"):
        clip_gradients(parameters, 0)
    broken = _with_gradients([3.0], [math.inf])
    assert clip_gradients(broken, 1.0) == math.inf
    assert broken[0].grad.tolist() == [3], "what is no number is left for the guard to see"  # type: ignore[union-attr]
