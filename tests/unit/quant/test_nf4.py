"""NF4 by its definition, against bitsandbytes where that is installed, and a layer that keeps nothing unpacked."""

from dataclasses import replace

import pytest
import torch

from circius.base.errors import InvalidInputError
from circius.model.layers import Linear
from circius.quant.nf4 import _VALUES, BLOCK, Nf4Linear, Scales, from_codes, to_codes, to_nf4
from tests.models import random_model, tiny_config
from tests.packed import packable_config, packed_model


def test_values_are_the_papers_quantiles() -> None:
    """Both sides of the normal distribution, as far out as half of the outermost two of 32 equal parts on average."""
    far = 1 - (1 / 32 + 1 / 30) / 2
    above = torch.special.ndtri(torch.linspace(0.5, far, 9, dtype=torch.float64))
    below = -torch.special.ndtri(torch.linspace(0.5, far, 8, dtype=torch.float64))
    expected = torch.cat((below, above[1:])).sort().values / above[-1]
    torch.testing.assert_close(torch.tensor(_VALUES, dtype=torch.float64), expected, atol=1e-6, rtol=0)


def test_each_number_gets_the_nearest_value_of_its_block() -> None:
    weight = torch.randn(6, 128)
    weight[2, 64:] = 0
    codes, scales = to_codes(weight)
    assert (codes.dtype, codes.shape, scales.shape) == (torch.uint8, (6 * 64,), (12,))
    found = from_codes(codes, scales)
    blocks = weight.view(-1, BLOCK)
    assert scales.equal(blocks.abs().amax(1))
    choices = torch.tensor(_VALUES)[:, None, None] * scales[:, None]
    torch.testing.assert_close((found - blocks).abs(), (choices - blocks).abs().amin(0), atol=1e-6, rtol=0)
    assert not found[5].any()
    assert from_codes(*to_codes(found.view(6, 128))).equal(found), "what is on the grid stays"


@pytest.mark.parametrize("n", [1, 256, 600])
def test_scales_in_8_bits(n: int) -> None:
    scales = torch.rand(n) + 0.5
    found = Scales.of(scales)
    worst = (scales - scales.mean()).abs().max() / 254
    assert (found.values() - scales).abs().max() <= worst * 1.001
    assert (found.codes.dtype, len(found.steps)) == (torch.int8, -(-n // 256))


@pytest.mark.parametrize("is_double", [True, False])
def test_a_layer_is_its_values(is_double: bool) -> None:
    weight = torch.randn(96, 128)
    layer = Nf4Linear(weight, is_double=is_double)
    values = layer.unpacked()
    assert (values - weight).norm() / weight.norm() < 0.1
    assert layer.n_bytes * 8 / weight.numel() == pytest.approx(4.13 if is_double else 4.5, abs=0.02)
    kept: list[int] = []
    for dtype, at_most in ((torch.float32, 1e-4), (torch.bfloat16, 0.5)):
        x = torch.randn(5, 128, dtype=dtype, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):
            out = layer(x)
        assert out.dtype == dtype
        assert sum(kept) == 0
        torch.testing.assert_close(out.float(), x.float() @ values.T, atol=at_most, rtol=0.02)
        against = torch.randn(5, 96, dtype=dtype)
        out.backward(against)
        assert x.grad is not None
        torch.testing.assert_close(x.grad.float(), against.float() @ values, atol=at_most, rtol=0.02)


def test_casting_a_model_leaves_scales_alone() -> None:
    layer = Nf4Linear(torch.randn(8, 64))
    before = layer.unpacked()
    assert layer.to(torch.bfloat16).unpacked().equal(before)
    assert layer.to("meta").codes.device.type == "meta"


def test_a_model_in_nf4_is_nearly_the_model() -> None:
    config = replace(tiny_config(), dim=64, hidden_dim=64, n_heads=8)
    plain, model = random_model(config), random_model(config)
    to_nf4(model)
    assert sum(isinstance(module, Nf4Linear) for module in model.modules()) == 14
    assert isinstance(model.lm_head, Linear)
    tokens = torch.arange(30)
    with torch.no_grad():
        found, expected = model(tokens, [30]), plain(tokens, [30])
    assert 0.01 < (found - expected).norm() / expected.norm() < 0.5


def test_what_has_no_place_in_nf4_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"multiple of 64, got shape \(4, 96\)"):
        to_codes(torch.ones(4, 96))
    with pytest.raises(InvalidInputError, match="not finite"):
        to_codes(torch.full((1, 64), torch.inf))
    with pytest.raises(InvalidInputError, match="is a PackedLinear: NF4 is made of plain weights"):
        to_nf4(packed_model(packable_config()))


def test_equals_bitsandbytes() -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = torch.randn(64, 256)
    theirs, state = functional.quantize_4bit(weight, blocksize=BLOCK, quant_type="nf4")
    codes, scales = to_codes(weight)
    assert codes.equal(theirs.flatten())
    assert from_codes(codes, scales).view(64, 256).equal(functional.dequantize_4bit(theirs, state))
