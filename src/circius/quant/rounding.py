"""Matrices rounded to the nearest values of a grid, a few rows at a time."""

import torch
from torch import Tensor

from circius.base.errors import CheckpointError
from circius.kernels.packed import TILE, PackedMatrix, pack
from circius.quant.grid import Grid, Steps, codes_of, fit, nearest
from circius.weights.stored import Packed

_VALUES_AT_ONCE = 2**19  # 2 MiB in float32, a few times over: stays in a processor's cache
_SMALLEST_NORMAL = 2.0**-14  # of float16; below, its steps get coarse


def round_matrix(weight: Tensor, grid: Grid) -> Packed:
    """The packed matrix near `weight` (outputs, inputs), in any float, and the squared error.

    Codes are chosen for the scales as they are stored, so that rounding those costs next to nothing.
    """
    n_rows = max(1, _VALUES_AT_ONCE // (TILE * weight.shape[1])) * TILE
    parts, squared_error, squared_norm = [], 0.0, 0.0
    for stored in torch.split(weight, n_rows):
        rows = stored.float()
        groups = rows.reshape(-1, grid.group)
        steps = fit(groups, grid)
        scale, least = steps.wide()
        numbers = nearest(groups, scale, least, grid)
        parts.append(packed_rows(numbers.view(rows.shape), steps, grid))
        values = numbers.mul_(scale) if least is None else numbers.mul_(scale).add_(least)
        squared_error += float(values.sub_(groups).square_().sum())
        squared_norm += float(groups.square().sum())
    return Packed(_joined(parts), squared_error, squared_norm)


def packed_rows(numbers: Tensor, steps: Steps, grid: Grid) -> PackedMatrix:
    """The matrix of these whole numbers (outputs, inputs), with the steps of its groups in the order of rows."""
    scales, mins = (None if step is None else step.view(len(numbers), -1) for step in steps)
    assert scales is not None
    return pack(codes_of(numbers, grid), scales, mins)


def largest_magnitude(name: str, weight: Tensor) -> float:
    """The largest magnitude in a weight.

    Raises:
        CheckpointError: a value is NaN or infinite; the message says which weight has it.
    """
    least, greatest = torch.aminmax(weight)  # NaN spreads to both
    if not bool(torch.isfinite(least) & torch.isfinite(greatest)):
        n_bad = int((~torch.isfinite(weight)).sum())
        raise CheckpointError(
            f"{name} holds {n_bad} values that are NaN or infinite, of {weight.numel()}: such a weight cannot be "
            "quantised, and its model is damaged"
        )
    return max(abs(float(least)), abs(float(greatest)))


def scale_dtype(magnitude: float, bits: int) -> torch.dtype:
    """The number format for the scales of a matrix with this largest magnitude.

    float16 has three bits more than bfloat16, but only where the scales lie in its normal range.

    >>> scale_dtype(0.5, 4), scale_dtype(1e-6, 4)
    (torch.float16, torch.bfloat16)
    """
    # A minimum is as large as the largest value, a scale is that over the codes.
    fits = magnitude <= torch.finfo(torch.float16).max and magnitude / (2 ** (bits - 1)) >= _SMALLEST_NORMAL
    return torch.float16 if fits or magnitude == 0 else torch.bfloat16


def _joined(parts: list[PackedMatrix]) -> PackedMatrix:
    """Matrices below each other; all but the last have whole tiles."""
    mins = [part.mins for part in parts if part.mins is not None]
    return PackedMatrix(
        n_outputs=sum(part.n_outputs for part in parts),
        codes=torch.cat([part.codes for part in parts]),
        scales=torch.cat([part.scales for part in parts]),
        mins=torch.cat(mins) if mins else None,
    )
