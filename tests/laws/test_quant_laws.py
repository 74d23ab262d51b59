"""Rounding, as laws: how far a value may be from its weight, and that packing changes nothing."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from circius.kernels.packed import PackedMatrix
from circius.quant.gptq import add_products, factorise, round_compensated
from circius.quant.grid import Grid, codes_of, fit, nearest
from circius.quant.rounding import packed_rows, round_matrix


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    bits, has_mins = draw(st.sampled_from([(4, False), (4, True), (8, False)]))
    dtype = draw(st.sampled_from([torch.float16, torch.bfloat16]))
    return Grid(bits=bits, group=draw(st.sampled_from([32, 64, 96, 128])), has_mins=has_mins, dtype=dtype)


@st.composite
def matrices(draw: st.DrawFn, grid: Grid) -> Tensor:
    """Weights of any size and spread: even, with heavy tails, off centre, mostly zeros."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    shape = (draw(st.integers(1, 40)), grid.group * draw(st.integers(1, 3)))
    values = torch.randn(shape, generator=generator)
    values = draw(st.sampled_from([values, values**3, values + 5, values.relu() - 0.5, values * (values > 1)]))
    return values * draw(st.sampled_from([1e-3, 0.02, 1.0, 100.0]))


def by_group(matrix: PackedMatrix, parts: Tensor) -> Tensor:
    """Scales or minima (tiles, groups, 16) as (outputs * groups, 1) in float32."""
    return parts.transpose(1, 2).flatten(0, 1)[: matrix.n_outputs].reshape(-1, 1).float()


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_value_is_within_half_a_step_or_at_the_end_of_its_range(data: st.DataObject) -> None:
    grid = data.draw(grids())
    weight = data.draw(matrices(grid))
    matrix = round_matrix(weight, grid).matrix
    values, weights = matrix.unpack().view(-1, grid.group), weight.view(-1, grid.group)
    step = by_group(matrix, matrix.scales)
    least = 0.0 if matrix.mins is None else by_group(matrix, matrix.mins)
    ends = torch.cat([step * level + least for level in grid.levels], dim=1)
    within_range = weights.clamp(ends.amin(1, keepdim=True), ends.amax(1, keepdim=True))
    tolerance = 1e-5 * weights.abs().amax(1, keepdim=True)
    assert ((values - within_range).abs() <= step.abs() / 2 + tolerance).all()
    # The range falls short of the weights by less than a step and what rounding the scales costs.
    rounding = 16 * torch.finfo(grid.dtype).eps * weights.abs().amax(1, keepdim=True)
    assert ((weights - within_range).abs() <= 1.5 * step.abs() + rounding).all()


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_packing_is_a_round_trip(data: st.DataObject) -> None:
    grid = data.draw(grids())
    weight = data.draw(matrices(grid))
    groups = weight.view(-1, grid.group)
    steps = fit(groups, grid)
    scale, least = steps.wide()
    numbers = nearest(groups, scale, least, grid)
    expected = (numbers * scale + (0 if least is None else least)).view(weight.shape)
    matrix = packed_rows(numbers.view(weight.shape), steps, grid)
    assert matrix.unpack().equal(expected)
    assert (matrix.bits, matrix.group, matrix.scales.dtype) == (grid.bits, grid.group, grid.dtype)
    codes = codes_of(numbers, grid)
    assert int(codes.min()) >= (-127 if grid.bits == 8 else 0)
    assert int(codes.max()) <= (127 if grid.bits == 8 else 15)


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_compensation_never_loses_on_correlated_inputs(data: st.DataObject) -> None:
    grid = Grid(bits=4, group=data.draw(st.sampled_from([32, 64])), has_mins=data.draw(st.booleans()))
    seed = data.draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    n_inputs = 128
    mixing = torch.randn(n_inputs, n_inputs, generator=generator) * torch.logspace(0, -2, n_inputs)[:, None]
    x = torch.randn(600, n_inputs, generator=generator) @ mixing
    weight = torch.randn(40, n_inputs, generator=generator)
    products = torch.zeros(n_inputs, n_inputs)
    add_products(products, x)
    errors = [
        float(((packed.matrix.unpack() - weight) @ x.T).square().sum())
        for packed in (round_compensated(weight, factorise(products), grid), round_matrix(weight, grid))
    ]
    assert errors[0] < errors[1]
