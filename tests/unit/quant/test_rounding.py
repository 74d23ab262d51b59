"""Rounding to nearest: what it keeps, what it costs, and what it refuses."""

import pytest
import torch
from torch import Tensor

from circius.base.errors import CheckpointError, InvalidInputError
from circius.kernels.packed import pack
from circius.quant.grid import Grid
from circius.quant.rounding import largest_magnitude, round_matrix, scale_dtype

GRIDS = [
    *(Grid(bits=4, group=group, has_mins=mins) for group in (32, 64, 128) for mins in (False, True)),
    *(Grid(bits=8, group=group) for group in (32, 256)),
]


def relative_error(weight: Tensor, grid: Grid) -> float:
    packed = round_matrix(weight, grid)
    difference = packed.matrix.unpack() - weight.float()
    assert packed.squared_error == pytest.approx(float(difference.square().sum()), rel=1e-4)
    assert packed.squared_norm == pytest.approx(float(weight.float().square().sum()), rel=1e-4)
    return (packed.squared_error / packed.squared_norm) ** 0.5


def test_errors_of_normal_weights() -> None:
    """Eight bits are nearly exact, groups the smaller the better, and minima help."""
    weight = torch.randn(100, 256)
    errors = [relative_error(weight, grid) for grid in GRIDS]
    symmetric, asymmetric, eight = errors[0:6:2], errors[1:6:2], errors[6:]
    assert symmetric == sorted(symmetric)
    assert asymmetric == sorted(asymmetric)
    assert all(less < more for less, more in zip(asymmetric, symmetric, strict=True))
    assert 0.07 < asymmetric[0] < symmetric[0] < 0.09
    assert eight[0] < eight[1] < 0.01


def test_the_extreme_of_either_sign_takes_the_first_code() -> None:
    """Only that way all sixteen codes are of use, with a scale that may be negative."""
    weight = torch.zeros(2, 32)
    weight[:, :16] = torch.arange(-8.0, 8.0)
    weight[1] *= -0.25
    matrix = round_matrix(weight, Grid(bits=4, group=32)).matrix
    assert matrix.unpack().equal(weight)
    assert matrix.scales[0, 0, :2].tolist() == [1.0, -0.25]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("bits", "mins"), [(4, False), (4, True), (8, False)])
def test_what_lies_on_a_grid_already_stays(bits: int, mins: bool, dtype: torch.dtype) -> None:
    """Rounding twice is rounding once, for each group whose codes reach both ends."""
    codes = torch.randint(0, 16, (40, 64)) if bits == 4 else torch.randint(-127, 128, (40, 64))
    codes.view(40, 2, 32)[..., 0], codes.view(40, 2, 32)[..., 1] = (0, 15) if bits == 4 else (-127, 127)
    scales = (torch.rand(40, 2) + 0.5).to(dtype)
    least = torch.randn(40, 2).to(dtype) if mins else None
    known = pack(codes.to(torch.uint8 if bits == 4 else torch.int8), scales, least)
    again = round_matrix(known.unpack(), Grid(bits=bits, group=32, has_mins=mins, dtype=dtype)).matrix
    assert again.codes.equal(known.codes)
    torch.testing.assert_close(again.unpack(), known.unpack(), rtol=2**-8, atol=2**-7)


@pytest.mark.parametrize("grid", GRIDS)
def test_groups_of_one_value(grid: Grid) -> None:
    weight = torch.zeros(17, 256)
    assert round_matrix(weight, grid).matrix.unpack().equal(weight)
    weight += 0.375
    assert round_matrix(weight, grid).matrix.unpack().sub(weight).abs().max() < 0.375 / 100 * (grid.bits == 8) + 1e-3
    weight = weight * 1e-44  # the smallest numbers there are
    assert round_matrix(weight, grid).matrix.unpack().isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_in_sixteen_bits(dtype: torch.dtype) -> None:
    weight = torch.randn(20, 128).to(dtype)
    grid = Grid(bits=4, group=64)
    assert round_matrix(weight, grid).matrix.unpack().equal(round_matrix(weight.float(), grid).matrix.unpack())


@pytest.mark.parametrize("grid", GRIDS)
def test_rows_are_rounded_alone(grid: Grid) -> None:
    """However many are at hand at once: a matrix of several blocks is that of its parts."""
    weight = torch.randn(4_500, 256)
    whole = round_matrix(weight, grid).matrix.unpack()
    assert whole.shape == weight.shape
    for rows in (slice(0, 7), slice(2_040, 2_060), slice(4_499, None)):
        assert whole[rows].equal(round_matrix(weight[rows], grid).matrix.unpack())


def test_scales_are_float16_where_they_are_normal_numbers() -> None:
    assert scale_dtype(0.0, 4) == scale_dtype(65_000.0, 8) == scale_dtype(0.001, 4) == torch.float16
    assert scale_dtype(1e-5, 4) == scale_dtype(1e6, 4) == torch.bfloat16
    weight = torch.randn(16, 64) * 1e8
    assert relative_error(weight, Grid(bits=4, group=32, dtype=scale_dtype(float(weight.abs().max()), 4))) < 0.1


def test_weights_that_are_no_numbers() -> None:
    weight = torch.randn(8, 32)
    assert largest_magnitude("w", weight) == float(weight.abs().max())
    for bad in (torch.nan, torch.inf, -torch.inf):
        weight[3, 4] = bad
        with pytest.raises(CheckpointError, match=r"layers\.7\.w holds 1 values that are NaN or infinite, of 256"):
            largest_magnitude("layers.7.w", weight)


@pytest.mark.parametrize(
    "given", [{"bits": 3, "group": 32}, {"bits": 8, "group": 32, "has_mins": True}, {"bits": 4, "group": 48},
              {"bits": 4, "group": 32, "dtype": torch.float32}]
)  # fmt: skip
def test_grids_that_there_are_not(given: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError, match=r"weights are rounded to|groups must be"):
        Grid(**given)  # type: ignore[arg-type]
