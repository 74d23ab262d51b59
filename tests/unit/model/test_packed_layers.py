"""A model of packed, mixed and plain weights: the same logits as its values in float32, and honest buffers."""

import copy
from typing import Any

import pytest
import torch

from circius.base.errors import InvalidInputError
from circius.kernels.packed import PackedMatrix
from circius.model import RollingCache, Transformer, packed_layers
from circius.model.packed_layers import PackedEmbedding, PackedLinear, project
from tests.models import random_model, random_tokens
from tests.packed import dense_twin, fully_packed_model, packable_config, packed_model, random_weights, rounded

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("tied", [False, True])
def test_in_float_the_logits_are_those_of_the_values(tied: bool) -> None:
    config = packable_config(tied=tied)
    model, tokens = packed_model(config), random_tokens(19)
    expected = dense_twin(config)(tokens, [12, 7])
    model.set_activations("float")
    torch.testing.assert_close(model(tokens, [12, 7]), expected, atol=2e-5, rtol=0)
    assert model.is_packed
    assert not dense_twin(config).is_packed
    assert (model.dtype, model.device.type) == (torch.float32, "cpu")


def test_activations_of_8_bits_are_near() -> None:
    config = packable_config()
    tokens = random_tokens(19)
    ours, exact = packed_model(config)(tokens, [19]), dense_twin(config)(tokens, [19])
    assert ((ours - exact).norm() / exact.norm()) < 0.03


def test_with_a_cache_in_chunks() -> None:
    config = packable_config(window=5)
    model, tokens = packed_model(config), random_tokens(23)
    cache = RollingCache(config, [23], dtype=model.dtype, device=model.device)
    parts = torch.cat([model(part, [len(part)], cache=cache) for part in tokens.split(4)])
    torch.testing.assert_close(parts, model(tokens, [23]), atol=2e-2, rtol=0)


def test_packed_layers_of_one_input_work_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    own = packed_layers.packed_linears

    def counting(x: torch.Tensor, matrices: list[PackedMatrix], *rest: Any, **more: Any) -> tuple[torch.Tensor, ...]:
        calls.append(len(matrices))
        return own(x, matrices, *rest, **more)

    monkeypatch.setattr(packed_layers, "packed_linears", counting)
    a, b = (PackedLinear(rounded(torch.randn(n, 64))) for n in (32, 48))
    plain = torch.nn.Linear(64, 20, bias=False)
    x = torch.randn(3, 64)
    first, second, third = project(x, a, plain, b)
    assert calls == [2]
    assert torch.equal(first, a(x))
    assert torch.equal(second, plain(x))
    assert torch.equal(third, b(x))


def test_the_state_has_the_names_of_the_checkpoint_and_loads_again() -> None:
    config = packable_config()
    model = packed_model(config)
    state = model.state_dict()
    assert state["model.layers.0.self_attn.q_proj.weight.codes"].dtype == torch.uint8
    assert "model.layers.0.self_attn.q_proj.weight.mins" not in state
    assert "model.layers.0.mlp.up_proj.weight.mins" in state
    assert "model.layers.1.self_attn.o_proj.weight" in state
    blank = {n: w if isinstance(w, torch.Tensor) else zeroed(w) for n, w in random_weights(config).items()}
    tokens = random_tokens(9)
    for assign in (True, False):
        other = Transformer(config).requires_grad_(False).eval()
        other.place(blank)
        assert not torch.equal(other(tokens, [9]), model(tokens, [9]))
        other.load_state_dict(state, assign=assign)
        assert torch.equal(other(tokens, [9]), model(tokens, [9]))


def zeroed(matrix: PackedMatrix) -> PackedMatrix:
    scales, mins = torch.zeros_like(matrix.scales), matrix.mins
    mins = None if mins is None else torch.zeros_like(mins)
    return PackedMatrix(n_outputs=matrix.n_outputs, codes=matrix.codes.clone(), scales=scales, mins=mins)


def test_nothing_is_copied() -> None:
    weights = random_weights(packable_config())
    model = Transformer(packable_config())
    model.place(weights)
    placed = model.get_submodule("model.layers.0.mlp.down_proj")
    given = weights["model.layers.0.mlp.down_proj.weight"]
    assert isinstance(placed, PackedLinear)
    assert isinstance(given, PackedMatrix)
    assert placed.weight.matrix.codes.data_ptr() == given.codes.data_ptr()
    assert isinstance(model.model.embed_tokens, PackedEmbedding)


def test_weights_of_another_model_are_refused() -> None:
    model = Transformer(packable_config())
    weights = random_weights(packable_config())
    weights.pop("model.layers.0.mlp.down_proj.weight")
    with pytest.raises(InvalidInputError, match=r"20 weights for a model of 21: they differ in .*down_proj"):
        model.place(weights)


def test_it_moves_but_takes_no_other_number_format() -> None:
    model = packed_model(packable_config())
    tokens = random_tokens(9)
    expected = model(tokens, [9])
    assert torch.equal(model.to("cpu").float().to(torch.float32)(tokens, [9]), expected)
    for cast in (model.half, model.bfloat16, lambda: model.to(torch.float64)):
        with pytest.raises(InvalidInputError, match="cannot be cast"):
            cast()
    assert torch.equal(model(tokens, [9]), expected)
    moved = model.to("meta")
    weight = moved.get_submodule("model.layers.0.mlp.down_proj.weight")
    assert (weight.matrix.codes.device.type, weight.matrix.scales.dtype) == ("meta", torch.float16)
    assert moved.device.type == "meta"


def test_a_copy_has_weights_of_its_own() -> None:
    """The native library is given addresses: those of the copy."""
    model, tokens = fully_packed_model(packable_config()), random_tokens(9)
    with torch.inference_mode():
        expected = model(tokens, [9])
        copied, moved = copy.deepcopy(model), copy.deepcopy(model).to("cpu")
        for buffer in model.buffers():
            buffer.zero_()
        assert not torch.equal(model(tokens, [9]), expected)
        assert torch.equal(copied(tokens, [9]), expected)
        assert torch.equal(moved(tokens, [9]), expected)


def test_a_plain_model_is_as_before() -> None:
    model = random_model(packable_config())
    model.set_activations("float")
    assert not model.is_packed
    assert model.half().dtype == torch.float16
