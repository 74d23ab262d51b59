"""Whole layers in the library: the same bits as layer by layer, and only where that is allowed."""

import pytest
import torch

from circius.kernels import native, ring_attention
from circius.model import RollingCache, Transformer
from circius.model.packed_blocks import PackedBlocks
from tests.models import random_tokens
from tests.packed import fully_packed_model, packable_config, packed_model

pytestmark = [
    pytest.mark.quick,
    pytest.mark.skipif(not ring_attention.is_fast(), reason="the native kernels were not built here"),
]


def counted(model: Transformer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tokens of each forward that the library ran whole."""
    calls: list[int] = []
    own = PackedBlocks.__call__

    def counting(self: PackedBlocks, hidden: torch.Tensor, *rest: object) -> torch.Tensor:
        calls.append(len(hidden))
        return own(self, hidden, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(PackedBlocks, "__call__", counting)
    return calls


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8])
def test_same_bits_as_the_layers_one_by_one(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = fully_packed_model(packable_config()), random_tokens(40)
    calls = counted(model, monkeypatch)

    def run() -> torch.Tensor:
        cache = RollingCache(model.config, [40, 40], dtype=dtype, device="cpu")
        first = model(tokens, [30, 10], cache=cache)
        return torch.cat((first, model(tokens[:3], [1, 2], cache=cache), model(tokens[:2], [1, 1], cache=cache)))

    whole = run()
    assert calls == [40, 3, 2]
    model._packed_blocks = None
    assert torch.equal(run(), whole)


def test_without_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = fully_packed_model(packable_config()), random_tokens(40)
    calls = counted(model, monkeypatch)
    whole = model(tokens, [33, 7])
    model._packed_blocks = None
    assert torch.equal(model(tokens, [33, 7]), whole)
    assert calls == [40]


def test_torch_runs_what_the_library_must_not(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = fully_packed_model(packable_config()), random_tokens(20)
    calls = counted(model, monkeypatch)
    with native.disabled():
        model(tokens, [20])
    model.set_activations("float")
    model(tokens, [20])
    model.set_activations("int8")
    model(random_tokens(600), [600])  # more tokens than one call takes
    model.model.layers[0].input_layernorm.weight.requires_grad_(True)
    model(tokens, [20]).sum().backward()
    assert model.model.layers[0].input_layernorm.weight.grad is not None
    assert calls == []


def test_other_weights_in_the_same_modules_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = fully_packed_model(packable_config()), random_tokens(20)
    calls = counted(model, monkeypatch)
    before = model(tokens, [20])
    state = {name: part.clone() for name, part in model.state_dict().items()}
    name = "model.layers.0.mlp.up_proj.weight.scales"
    state[name] = state[name] * 2
    model.load_state_dict(state, assign=True)
    after = model(tokens, [20])
    assert calls == [20]
    assert not torch.equal(before, after)


def test_a_layer_that_is_not_packed_goes_through_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = packed_model(packable_config())  # whose second layer has a plain matrix
    calls = counted(model, monkeypatch)
    assert model(random_tokens(9), [9]).isfinite().all()
    assert calls == []
