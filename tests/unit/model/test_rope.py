"""The rotation: its table, its order of halves, and positions that float32 could not tell apart."""

import math

import pytest
import torch

from circius.model.rope import rotate, rotation_at

pytestmark = pytest.mark.quick


def test_a_pair_turns_by_position_times_frequency() -> None:
    rotation = rotation_at(torch.tensor([3]), head_dim=4, theta=100.0)
    turned = rotate(torch.tensor([[[1.0, 0.0, 0.0, 1.0]]]), rotation)[0, 0]
    slow = 3 * 100.0**-0.5
    expected = [math.cos(3), -math.sin(slow), math.sin(3), math.cos(slow)]
    torch.testing.assert_close(turned, torch.tensor(expected))


@pytest.mark.parametrize("shift", [1, 1000, 2**25 + 1, 2**40 + 12345])
def test_only_distances_matter_at_any_position(shift: int) -> None:
    """The product of a rotated query and key is the same wherever in a stream they stand."""
    query, key = torch.randn(2, 5, 3, 64)
    places = torch.arange(5)

    def products(first: int) -> torch.Tensor:
        rotation = rotation_at(places + first, head_dim=64, theta=1e4)
        return torch.einsum("qhd,khd->hqk", rotate(query, rotation), rotate(key, rotation))

    # float64 angles keep a resolution of 2**40 * 1e-16 = 1e-4; float32 would have lost whole turns.
    torch.testing.assert_close(products(shift), products(0), atol=1e-5 if shift < 2**30 else 5e-3, rtol=1e-4)


def test_rotation_happens_in_float32_whatever_the_dtype() -> None:
    x = torch.randn(7, 2, 16)
    rotation = rotation_at(torch.arange(7) + 900, head_dim=16, theta=1e4)
    half = rotate(x.to(torch.bfloat16), rotation)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, rotate(x.to(torch.bfloat16).float(), rotation).to(torch.bfloat16))
