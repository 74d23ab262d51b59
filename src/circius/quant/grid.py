"""The values that a group of weights can take in 4 or 8 bits, and the choice of a scale that brings them near.

The group's extreme gives a first scale and with it codes; the scale is then fitted to these codes by least squares.
Where a calibration says what each error counts, several first scales are tried. Without one that does harm: the squared
error gets smaller, but at the cost of the largest weights, which carry more than their number says (docs/log.md).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from circius.base.errors import InvalidInputError
from circius.kernels.packed import SCALE_DTYPES, UNIT, ZERO_CODE

GROUPS = (32, 64, 128)
"""The groups of inputs that are offered for 4 bits."""
_TRIES = (0.8, 0.9, 1.0, 1.1, 1.2)
"""First scales that are tried, over the one that follows from the extremes."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """How a matrix is rounded.

    bits: 4 or 8. group: the inputs that share a scale. has_mins: whether each group has a minimum too, with 4 bits
    only; without, code 8 of 4 bits and code 0 of 8 bits are zero. dtype: of scales and minima.

    Raises:
        InvalidInputError: a combination that no packed matrix can have.
    """

    bits: int
    group: int
    has_mins: bool = False
    dtype: torch.dtype = torch.float16

    def __post_init__(self) -> None:
        if self.bits not in (4, 8) or (self.has_mins and self.bits != 4):
            raise InvalidInputError(
                f"weights are rounded to 4 bits, with or without minima, or to 8 bits without: got {self.bits} bits"
                f"{' with minima' if self.has_mins else ''}"
            )
        if self.group < UNIT or self.group % UNIT or self.dtype not in SCALE_DTYPES:
            raise InvalidInputError(
                f"groups must be multiples of {UNIT} inputs with scales in float16 or bfloat16, got {self.group} and "
                f"{self.dtype}"
            )

    @property
    def levels(self) -> tuple[int, int]:
        """The least and the greatest whole number that a scale is multiplied by."""
        if self.bits == 8:
            return -127, 127
        return (0, 15) if self.has_mins else (-ZERO_CODE, 15 - ZERO_CODE)


class Steps(NamedTuple):
    """The scale and the minimum of each group, (N,), in the grid's dtype; minimum None where there are none."""

    scale: Tensor
    min: Tensor | None = None

    def wide(self) -> tuple[Tensor, Tensor | None]:
        """Both as float32 columns (N, 1)."""
        return self.scale.float()[:, None], None if self.min is None else self.min.float()[:, None]


def fit(groups: Tensor, grid: Grid, importance: Tensor | None = None) -> Steps:
    """The steps for groups (N, group) in float32, rounded to the grid's dtype.

    importance: what the squared error of each value counts, (N, group) or (1, group); None counts all alike.
    """
    if grid.bits == 8:
        return Steps(_stored(groups.abs().amax(dim=1) / grid.levels[1], grid))
    if grid.has_mins:
        return _fit_asymmetric(groups, grid, importance)
    return Steps(_fit_symmetric(groups, grid, importance))


def nearest(values: Tensor, scale: Tensor, least: Tensor | None, grid: Grid) -> Tensor:
    """The whole numbers, as floats, whose values are nearest to `values`; scale and minimum (float32) broadcast.

    A scale of zero stands for a group whose values are all alike, or too small for one: all its numbers are zero.
    """
    shifted = values if least is None else values - least
    return (shifted * _inverse(scale)).round_().clamp_(*grid.levels)


def codes_of(numbers: Tensor, grid: Grid) -> Tensor:
    """The codes of whole numbers as the packed layout has them: uint8 for 4 bits, int8 for 8."""
    if grid.bits == 8:
        return numbers.to(torch.int8)
    return (numbers - grid.levels[0]).to(torch.uint8)


def _fit_symmetric(groups: Tensor, grid: Grid, importance: Tensor | None) -> Tensor:
    extreme = groups.gather(1, groups.abs().argmax(dim=1, keepdim=True))
    best_gain, best = torch.zeros_like(extreme), torch.zeros_like(extreme)
    for factor in (1.0,) if importance is None else _TRIES:
        numbers = nearest(groups, extreme * (factor / grid.levels[0]), None, grid)
        weighted = numbers if importance is None else numbers * importance
        fitted, size = _dot(weighted, groups), _dot(weighted, numbers)
        # With the best scale for these numbers the squared error falls by this much from that of all zeros.
        scale = fitted * _inverse(size)
        gain = fitted * scale
        is_better = gain > best_gain
        best_gain, best = torch.where(is_better, gain, best_gain), torch.where(is_better, scale, best)
    return _stored(best[:, 0], grid)


def _fit_asymmetric(groups: Tensor, grid: Grid, importance: Tensor | None) -> Steps:
    weights = torch.ones_like(groups[:1]) if importance is None else importance
    weights = weights / weights.sum(dim=1, keepdim=True)
    least, greatest = torch.aminmax(groups, dim=1, keepdim=True)
    middle, span = (least + greatest) / 2, greatest - least
    centre = (groups * weights).sum(dim=1, keepdim=True)
    best_error = torch.full_like(least, torch.inf)
    best_scale, best_min = torch.zeros_like(least), centre
    for factor in (1.0,) if importance is None else _TRIES:
        first = middle - span * (factor / 2)
        numbers = nearest(groups, span * (factor / grid.levels[1]), first, grid)
        mean = (numbers * weights).sum(dim=1, keepdim=True)
        apart = (numbers - mean) * weights
        scale = _dot(apart, groups) * _inverse(_dot(apart, numbers))
        smallest = centre - scale * mean
        error = ((numbers * scale + smallest - groups).square_() * weights).sum(dim=1, keepdim=True)
        is_better = error < best_error
        best_error = torch.where(is_better, error, best_error)
        best_scale, best_min = torch.where(is_better, scale, best_scale), torch.where(is_better, smallest, best_min)
    return Steps(_stored(best_scale[:, 0], grid), _stored(best_min[:, 0], grid))


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(dim=1, keepdim=True)


def _inverse(x: Tensor) -> Tensor:
    """1 / x, and 0 where that would overflow."""
    return torch.where(x.abs() < torch.finfo(torch.float32).tiny, 0.0, 1 / x)


def _stored(steps: Tensor, grid: Grid) -> Tensor:
    largest = torch.finfo(grid.dtype).max
    return steps.clamp(-largest, largest).to(grid.dtype)
