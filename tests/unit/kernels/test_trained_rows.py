"""What training keeps less of has the values and the gradients that autograd gives."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from circius.kernels.rows import rms_norm, silu_times
from circius.kernels.trained_rows import trained_gated_product, trained_rms_norm, trained_silu_times
from circius.model.layers import Block
from tests.models import tiny_config

EPS = 1e-5


def plain_norm(x: Tensor, weight: Tensor) -> Tensor:
    return weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS))


def plain_gate(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate) * up


def plain_product(gate: Tensor, up: Tensor, weight: Tensor) -> Tensor:
    return plain_gate(gate, up) @ weight.T


CASES: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor], list[tuple[int, ...]]]] = {
    "norm": (lambda x, weight: trained_rms_norm(x, weight, EPS), plain_norm, [(7, 12), (12,)]),
    "gate": (trained_silu_times, plain_gate, [(7, 12), (7, 12)]),
    "product": (trained_gated_product, plain_product, [(7, 12), (7, 12), (5, 12)]),
}


def _inputs(shapes: list[tuple[int, ...]], dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_differences(name: str) -> None:
    ours, _, shapes = CASES[name]
    assert torch.autograd.gradcheck(ours, _inputs(shapes, torch.float64))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients_are_autograds(name: str, dtype: torch.dtype) -> None:
    ours, plain, shapes = CASES[name]
    inputs, exact = _inputs(shapes, dtype), [x.detach().double().requires_grad_() for x in _inputs(shapes, dtype)]
    out, expected = ours(*inputs), plain(*exact)
    against = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    out.backward(against)
    expected.backward(against.double())
    near = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.03, "atol": 0.06}
    torch.testing.assert_close(out.double(), expected, **near)
    for own, other in zip(inputs, exact, strict=True):
        assert own.grad is not None
        assert own.grad.dtype == dtype
        torch.testing.assert_close(own.grad.double(), other.grad, **near)


@pytest.mark.parametrize("name", CASES)
def test_only_the_gradients_that_are_wanted_are_made(name: str) -> None:
    ours, plain, shapes = CASES[name]
    for place in range(len(shapes)):
        inputs = [x.detach().requires_grad_(index == place) for index, x in enumerate(_inputs(shapes, torch.float32))]
        found = torch.autograd.grad(ours(*inputs).sum(), inputs[place])[0]
        expected = torch.autograd.grad(plain(*inputs).sum(), inputs[place])[0]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_same_values_with_gradients_and_without() -> None:
    x, weight = _inputs([(7, 12), (12,)], torch.float32)
    assert torch.equal(trained_rms_norm(x, weight, EPS), rms_norm(x.detach(), weight.detach(), EPS))
    gate, up = _inputs([(7, 12), (7, 12)], torch.float32)
    assert torch.equal(trained_silu_times(gate, up), silu_times(gate.detach(), up.detach()))


def test_a_block_keeps_no_more_than_it_must() -> None:
    """Of the feed-forward part gate and up; of norms what comes in and what goes into the products."""
    config = tiny_config()
    block = Block(config)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    n_tokens = 50
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        if x.shape[:1] == (n_tokens,):
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes() // (4 * n_tokens)
        return x

    x = torch.randn(n_tokens, config.dim, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = block.mlp(block.post_attention_layernorm(x))
    out.sum().backward()
    assert sum(kept.values()) == 2 * config.dim + 2 * config.hidden_dim
