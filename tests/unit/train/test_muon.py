"""Muon against torch's own, and its one promise: nearly equal singular values."""

from unittest.mock import patch

import pytest
import torch
from torch import nn

from circius.base.errors import InvalidInputError
from circius.train import muon as module
from circius.train.muon import Muon, orthogonal

SHAPES = [(24, 8), (8, 24), (24, 8), (16, 16)]


def _matrices(seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_are_nearly_one(shape: tuple[int, int]) -> None:
    u, _, v = torch.linalg.svd(torch.randn(3, *shape), full_matrices=False)
    found = orthogonal(u @ torch.diag(torch.logspace(0, -1.5, min(shape))) @ v)
    values = torch.linalg.svdvals(found.float())
    assert 0.6 < values.min() < values.max() < 1.3
    cosine = (found * (u @ v)).sum() / (found.norm() * (u @ v).norm())
    assert cosine > 0.98
    assert orthogonal(torch.zeros(1, *shape)).count_nonzero() == 0


@pytest.mark.parametrize("narrow", [True, False])
def test_equals_torchs(narrow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's always works in bfloat16; in the same format both agree to its rounding."""
    monkeypatch.setattr(module, "multiplies_fast", lambda *_: narrow)
    mine, theirs = _matrices(), _matrices()
    ours = Muon([{"params": mine}], lr=0.1, weight_decay=0.2, momentum=0.9)
    torchs = torch.optim.Muon(theirs, lr=0.1, weight_decay=0.2, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    for step in range(4):
        for a, b, gradient in zip(mine, theirs, _matrices(step + 1), strict=True):
            a.grad, b.grad = gradient.detach().clone(), gradient.detach().clone()
        ours.step()
        torchs.step()
    for a, b, start in zip(mine, theirs, _matrices(), strict=True):
        assert (a - b).norm() < 0.05 * (b - start).norm()
        assert ours.state[a]["momentum_buffer"].equal(torchs.state[b]["momentum_buffer"])


def test_matrices_of_one_shape_go_together_and_memory_is_bounded() -> None:
    stacks: list[tuple[int, ...]] = []

    def seen(matrices: torch.Tensor) -> torch.Tensor:
        stacks.append(tuple(matrices.shape))
        return matrices

    with patch.object(module, "orthogonal", seen):
        for at_once in (2**26, 24 * 8):
            stacks.clear()
            matrices = _matrices()
            for matrix in matrices:
                matrix.grad = torch.ones_like(matrix)
            with patch.object(module, "_NUMBERS_AT_ONCE", at_once):
                Muon([{"params": matrices}], lr=0.1, weight_decay=0.0, momentum=0.9).step()
            first = [(2, 24, 8)] if at_once > 1000 else [(1, 24, 8), (1, 24, 8)]
            assert stacks == [(1, 8, 24), (1, 16, 16), *first]


def test_only_matrices() -> None:
    with pytest.raises(InvalidInputError, match=r"got a parameter of shape \(3,\)"):
        Muon([{"params": [nn.Parameter(torch.ones(3))]}], lr=0.1, weight_decay=0.0, momentum=0.9)
