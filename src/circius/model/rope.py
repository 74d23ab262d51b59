"""Rotary position embedding in the rotate-half order of Hugging Face checkpoints (RoFormer, arXiv 2104.09864)."""

from typing import NamedTuple

import torch
from torch import Tensor


class Rotation(NamedTuple):
    """The cosines and sines of some positions, each (N, 1, D) in float32, to be shared by all heads and layers."""

    cos: Tensor
    sin: Tensor


def rotation_at(positions: Tensor, *, head_dim: int, theta: float) -> Rotation:
    """The rotation of `positions` (N,), whole numbers from 0 without an upper end.

    Angles are formed in float64: in float32 the position itself stops being exact at 2**24, and long before that the
    product with a frequency loses the digits that tell neighbours apart. Streams here have no last position.
    """
    device = positions.device
    if device.type == "mps":  # has no float64
        positions = positions.cpu()
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float64, device=positions.device) / head_dim
    angles = positions[:, None].double() * theta**-exponents
    angles = torch.cat((angles, angles), dim=-1)[:, None, :]
    return Rotation(angles.cos().float().to(device), angles.sin().float().to(device))


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """`x` (N, heads, D) turned by the angle of each token's position; float32 inside, the dtype of `x` outside."""
    wide = x.float()
    first, second = wide.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (wide * rotation.cos + turned * rotation.sin).to(x.dtype)
