"""Pairs beside plain, packed and NF4 matrices: nothing at first, then the gradients that calculus asks for."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from circius.base.errors import InvalidInputError
from circius.kernels.packed_linear import packed_linear
from circius.model import Transformer
from circius.model.adapter import PROJECTIONS, Adapter, AdapterConfig, LowRank
from circius.quant.nf4 import to_nf4
from circius.train.forward import batch_loss, recompute_blocks
from circius.train.lora import LowRankLinear, adapter_of, add_lora, enabled, load_into
from circius.train.optim import Optimizer, OptimizerConfig
from circius.weights.adapter import read_adapter, write_adapter
from tests.models import random_model, random_tokens, tiny_config
from tests.packed import dense_twin, packable_config, packed_model, rounded
from tests.unit.train.test_forward import _batch

CONFIG = AdapterConfig(rank=4, alpha=8)
NF4_CONFIG = replace(packable_config(), dim=64, hidden_dim=64, n_heads=8)


def _plain() -> Transformer:
    return random_model(tiny_config())


def _packed() -> Transformer:
    model = packed_model(packable_config())
    model.set_activations("float")
    return model


def _nf4() -> Transformer:
    model = random_model(NF4_CONFIG)
    to_nf4(model)
    return model


def _bfloat16() -> Transformer:
    return random_model(tiny_config()).bfloat16()


BASES = [_plain, _packed, _nf4, _bfloat16]


def _randomised(model: Transformer) -> None:
    """Pairs as after some training."""
    for name, own in model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(own, std=0.1)


def _trained(model: Transformer) -> dict[str, Tensor]:
    return {name: own for name, own in model.named_parameters() if own.requires_grad}


@pytest.mark.parametrize("make", BASES)
def test_it_begins_as_its_base_to_the_bit(make: Callable[[], Transformer]) -> None:
    tokens, lengths = random_tokens(45), [40, 5]
    base, model = make(), make()
    with torch.no_grad():
        expected = base(tokens, lengths)
        add_lora(model, CONFIG)
        assert model(tokens, lengths).equal(expected)
        _randomised(model)
        assert not model(tokens, lengths).equal(expected)
        with enabled(model, False):
            assert model(tokens, lengths).equal(expected)
            with enabled(model, True):
                assert not model(tokens, lengths).equal(expected)
            assert model(tokens, lengths).equal(expected)
        assert not model(tokens, lengths).equal(expected)


@pytest.mark.parametrize("make", BASES)
def test_it_is_the_same_function_with_gradients_and_without(make: Callable[[], Transformer]) -> None:
    """Other kernels, the same numbers: or a policy and its reference would differ before the first step."""
    tokens, lengths = random_tokens(45), [40, 5]
    model = make()
    add_lora(model, CONFIG)
    _randomised(model)
    at_most = 0.1 if model.dtype == torch.bfloat16 else 2e-5
    with torch.no_grad():
        expected = model(tokens, lengths)
    found = model(tokens, lengths)
    assert found.requires_grad
    torch.testing.assert_close(found.detach(), expected, atol=at_most, rtol=at_most)


def test_what_is_trained_has_pefts_names_and_is_float32() -> None:
    model = _bfloat16()
    add_lora(model, replace(CONFIG, targets=("q_proj", "down_proj")))
    trained = _trained(model)
    assert {name: tuple(own.shape) for name, own in trained.items() if ".layers.1." in name} == {
        "model.layers.1.self_attn.q_proj.lora_A.weight": (4, 32),
        "model.layers.1.self_attn.q_proj.lora_B.weight": (32, 4),
        "model.layers.1.mlp.down_proj.lora_A.weight": (4, 48),
        "model.layers.1.mlp.down_proj.lora_B.weight": (32, 4),
    }
    assert len(trained) == 8
    assert {own.dtype for own in trained.values()} == {torch.float32}
    for name, own in trained.items():
        if "lora_A" in name:  # uniform, with the variance 1 / (3 inputs) of torch's layers
            assert own.detach().abs().max() < own.shape[1] ** -0.5
            assert float(own.detach().std()) == pytest.approx((3 * own.shape[1]) ** -0.5, rel=0.2)
        else:
            assert not own.any()


def test_the_same_seed_gives_the_same_pairs() -> None:
    models = [_plain(), _plain()]
    for model in models:
        torch.manual_seed(3)
        add_lora(model, CONFIG)
    assert all(a.equal(b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))


@pytest.mark.parametrize("uses_rslora", [False, True])
def test_gradients_are_those_of_the_merged_matrix(uses_rslora: bool) -> None:
    """With W + s B A for a matrix whose gradient is G, that of A is s B^T G and that of B is s G A^T."""
    config, batch = replace(CONFIG, uses_rslora=uses_rslora), _batch([30, 9])
    model, merged = _plain(), _plain()
    add_lora(model, config)
    _randomised(model)
    adapter = adapter_of(model)
    with torch.no_grad():
        for name, part in adapter.parts.items():
            merged.get_submodule(name).weight += config.scale * part.up @ part.down
    losses = [batch_loss(one, batch).total for one in (model, merged)]
    torch.testing.assert_close(losses[0], losses[1])
    for loss in losses:
        loss.backward()
    for name, part in adapter.parts.items():
        against = merged.get_submodule(name).weight.grad
        pair = model.get_submodule(name)
        assert isinstance(pair, LowRankLinear)
        torch.testing.assert_close(pair.lora_A.weight.grad, config.scale * part.up.T @ against, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(pair.lora_B.weight.grad, config.scale * against @ part.down.T, atol=1e-4, rtol=1e-4)
    assert all(own.grad is None for own in model.parameters() if not own.requires_grad)


def test_beside_packed_matrices_gradients_are_those_beside_their_values() -> None:
    packed, dense = packed_model(packable_config()), dense_twin(packable_config())
    for model in (packed, dense):
        torch.manual_seed(0)
        add_lora(model, CONFIG)
        torch.manual_seed(1)
        _randomised(model)
        loss = batch_loss(model, _batch([25, 14]))
        (loss.total / loss.n_tokens).backward()
    theirs = _trained(dense)
    for name, own in _trained(packed).items():
        assert own.grad is not None
        assert own.grad.any(), name
        torch.testing.assert_close(own.grad, theirs[name].grad, atol=1e-5, rtol=1e-4, msg=name)


def test_beside_nf4_gradients_are_those_beside_its_values() -> None:
    quantised, dense = _nf4(), random_model(NF4_CONFIG)
    with torch.no_grad():
        for layer in dense.model.layers:
            for name in PROJECTIONS:
                part = layer.get_submodule(f"{PROJECTIONS[name]}.{name}")
                place = next(n for n, module in dense.named_modules() if module is part)
                part.weight.copy_(quantised.get_submodule(place).unpacked())  # type: ignore[operator]
    for model in (quantised, dense):
        torch.manual_seed(0)
        add_lora(model, CONFIG)
        torch.manual_seed(1)
        _randomised(model)
        batch_loss(model, _batch([25, 14])).total.backward()
    theirs = _trained(dense)
    for name, own in _trained(quantised).items():
        torch.testing.assert_close(own.grad, theirs[name].grad, atol=1e-4, rtol=1e-4, msg=name)


def test_unpacked_values_are_not_kept_for_the_way_back() -> None:
    matrix = rounded(torch.randn(640, 256))
    x = torch.randn(3, 256, requires_grad=True)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):
        product = packed_linear(x, matrix)
    assert sum(kept) < 640 * 256
    product.sum().backward()
    torch.testing.assert_close(x.grad, matrix.unpack().sum(0).expand(3, -1), atol=1e-4, rtol=1e-4)


def test_dropout_is_drawn_from_torchs_numbers_and_only_in_training() -> None:
    model, batch = _plain(), _batch([30])
    add_lora(model, replace(CONFIG, dropout=0.5))
    _randomised(model)

    def loss(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return batch_loss(model, batch).total

    assert loss(1).equal(loss(2)), "a model in evaluation drops nothing"
    model.train()
    assert loss(1).equal(loss(1))
    assert not loss(1).equal(loss(2))
    loss(1).backward()
    gradients = {name: own.grad for name, own in _trained(model).items()}
    model.zero_grad()
    recompute_blocks(model)
    loss(1).backward()
    assert all(own.grad.equal(gradients[name]) for name, own in _trained(model).items())  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize("make", BASES)
def test_training_moves_the_pairs_and_nothing_else(make: Callable[[], Transformer]) -> None:
    model = make()
    add_lora(model, CONFIG)
    frozen = {name: x.clone() for name, x in model.state_dict().items() if ".lora_" not in name}
    optimizer = Optimizer(model.named_parameters(), OptimizerConfig(lr=0.02))
    batch, losses = _batch([30, 20]), []
    for _ in range(15):
        optimizer.zero_grad()
        loss = batch_loss(model, batch)
        losses.append(float(loss.total.detach()) / loss.n_tokens)
        (loss.total / loss.n_tokens).backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    state = model.state_dict()
    assert all(state[name].equal(x) for name, x in frozen.items())


def test_an_adapter_goes_to_disk_and_back_and_serves_the_same(tmp_path: Path) -> None:
    model, other, served = _plain(), _plain(), _plain()
    add_lora(model, replace(CONFIG, targets=("v_proj", "up_proj"), base_model="tiny"))
    _randomised(model)
    write_adapter(tmp_path / "adapter", adapter_of(model))
    adapter = read_adapter(tmp_path / "adapter", model.config)
    assert adapter.config == adapter_of(model).config
    add_lora(other, adapter.config)
    load_into(other, adapter)
    tokens = random_tokens(30)
    with torch.no_grad():
        expected = model(tokens, [30])
        assert other(tokens, [30]).equal(expected)
        served.adapter = adapter
        torch.testing.assert_close(served(tokens, [30]), expected, atol=1e-5, rtol=1e-5)


def _without_first(adapter: Adapter) -> Adapter:
    return Adapter(adapter.config, dict(list(adapter.parts.items())[1:]))


def _cut(adapter: Adapter) -> Adapter:
    return Adapter(adapter.config, {name: LowRank(p.down[:, 1:], p.up) for name, p in adapter.parts.items()})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda a: Adapter(replace(a.config, alpha=16), a.parts), "scale 4, the model's pairs have rank 4 and scale 2"),
        (_without_first, "the adapter has none beside model.layers.0.self_attn.q_proj"),
        (_cut, r"q_proj has shape \(4, 31\) where the model's has \(4, 32\)"),
    ],
)
def test_another_adapter_is_refused(change: Callable[[Adapter], Adapter], complaint: str) -> None:
    model = _plain()
    add_lora(model, CONFIG)
    with pytest.raises(InvalidInputError, match=complaint):
        load_into(model, change(adapter_of(model)))


def test_pairs_are_added_once_and_must_be_there() -> None:
    model = _plain()
    with pytest.raises(InvalidInputError, match="no trainable pairs: add them with add_lora first"):
        adapter_of(model)
    add_lora(model, CONFIG)
    with pytest.raises(InvalidInputError, match="has trainable pairs already"):
        add_lora(model, CONFIG)
    with pytest.raises(InvalidInputError, match="is a LowRankLinear: NF4 is made of plain weights"):
        to_nf4(model)
