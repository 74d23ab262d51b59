"""Attention with gradients: what autograd keeps, and that windows, groups and neighbours are as without."""

import pytest
import torch
from torch import Tensor

from circius.base.config import Window
from circius.model.step import FreshStep
from tests.models import tiny_config
from tests.unit.kernels.attention_cases import Tokens, exact, random_tokens

LENGTHS = [[1], [9, 9], [140, 3, 300]]


def _leaves(n: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [x.to(dtype).requires_grad_() for x in random_tokens(n, 4, 2, 8)]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("window", [1, 4, 130, 1000, None])
def test_equals_plain_attention_in_float64(lengths: list[int], window: Window) -> None:
    leaves = _leaves(sum(lengths))
    step = FreshStep(tiny_config(window=window), lengths, torch.device("cpu"))
    against = torch.randn(sum(lengths), 4, 8)
    found = step.attend(0, *leaves)
    gradients = torch.autograd.grad(found, leaves, against)

    wide = [x.detach().double().requires_grad_() for x in leaves]
    rows = zip(*(x.split(lengths) for x in wide), strict=True)
    expected = torch.cat([exact(Tokens(*row), window) for row in rows])
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    for mine, theirs in zip(gradients, torch.autograd.grad(expected, wide, against.double()), strict=True):
        torch.testing.assert_close(mine.double(), theirs, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(step.attend(0, *leaves), found, atol=1e-5, rtol=1e-5)


def _kept_bytes(n_tokens: int, window: Window, n_layers: int = 1) -> int:
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    leaves = _leaves(n_tokens)
    step = FreshStep(tiny_config(window=window), [n_tokens], torch.device("cpu"))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        alive = [step.attend(layer, *leaves) for layer in range(n_layers)]
    assert len(alive) == n_layers
    return sum(kept.values())


@pytest.mark.parametrize("window", [None, 4096, 256])
def test_what_is_kept_grows_with_the_tokens_and_not_with_their_pairs(window: Window) -> None:
    short, long = _kept_bytes(1024, window), _kept_bytes(2048, window)
    assert long < 2.1 * short
    assert long < 2048 * (4 + 2 + 2 + 4 + 1) * 8 * 4 + 2 * 128 * (128 + 256) * 4 * 2  # q, k, v, the mix, two masks
    a_layer_more = _kept_bytes(2048, window, n_layers=2) - long
    assert a_layer_more <= 2048 * (4 * 8 + 4 + 4) * 4  # its mix and normalisers: q, k, v and masks are shared


@pytest.mark.parametrize("window", [None, 20])
def test_bfloat16_keeps_its_dtype(window: Window) -> None:
    leaves = _leaves(50, torch.bfloat16)
    step = FreshStep(tiny_config(window=window), [50], torch.device("cpu"))
    found = step.attend(0, *leaves)
    wide = [x.detach().float().requires_grad_() for x in leaves]
    expected = step.attend(0, *wide)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=0.02, rtol=0.02)
    mine, theirs = torch.autograd.grad(found.sum(), leaves), torch.autograd.grad(expected.sum(), wide)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a.float(), b, atol=0.03, rtol=0.03)
