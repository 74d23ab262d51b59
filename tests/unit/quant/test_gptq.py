"""Compensated rounding against the paper's own recursion, and against rounding to nearest."""

import pytest
import torch
from torch import Tensor

from circius.base.errors import CirciusError
from circius.quant.gptq import add_products, factorise, round_compensated
from circius.quant.grid import Grid, nearest
from circius.quant.rounding import round_matrix


def correlated(n_tokens: int, n_inputs: int) -> Tensor:
    """Inputs of which a few directions carry the most, as in a real layer."""
    mixing = torch.randn(n_inputs, n_inputs) * torch.logspace(0, -2, n_inputs)[:, None]
    return torch.randn(n_tokens, n_inputs) @ mixing


def products_of(x: Tensor) -> Tensor:
    sums = torch.zeros(x.shape[1], x.shape[1])
    for part in x.split(100):
        add_products(sums, part)
    return sums


def output_error(weight: Tensor, rounded: Tensor, x: Tensor) -> float:
    return float(((rounded - weight) @ x.T).norm() / (weight @ x.T).norm())


@pytest.mark.parametrize("n_inputs", [96, 1024, 2080])
def test_products_and_their_triangle(n_inputs: int) -> None:
    x = correlated(300, n_inputs)
    sums = products_of(x)
    exact = x.double().T @ x.double()
    within = 1e-6 * float(exact.diagonal().max())
    torch.testing.assert_close(sums.tril().double(), exact.tril(), rtol=0, atol=within)
    damped = exact + 0.02 * exact.diagonal().mean() * torch.eye(n_inputs)
    triangle = factorise(sums, damping=0.02).tril().double()
    torch.testing.assert_close(triangle @ triangle.T, damped, rtol=0, atol=within)


@pytest.mark.parametrize("mins", [False, True])
@pytest.mark.parametrize("group", [32, 64])
def test_outputs_are_nearer_than_with_the_nearest_weights(group: int, mins: bool) -> None:
    weight, x, unseen = torch.randn(70, 128), *correlated(2_000, 128).split(1_000)
    grid = Grid(bits=4, group=group, has_mins=mins)
    nearest = round_matrix(weight, grid)
    packed = round_compensated(weight, factorise(products_of(x)), grid)
    assert output_error(weight, packed.matrix.unpack(), x) < 0.7 * output_error(weight, nearest.matrix.unpack(), x)
    assert output_error(weight, packed.matrix.unpack(), unseen) < output_error(weight, nearest.matrix.unpack(), unseen)
    assert packed.squared_error > nearest.squared_error
    assert packed.squared_error == pytest.approx(float((packed.matrix.unpack() - weight).square().sum()), rel=1e-4)
    assert packed.squared_norm == pytest.approx(float(weight.square().sum()), rel=1e-4)


def test_uncorrelated_inputs_leave_nothing_to_compensate() -> None:
    weight = torch.randn(33, 96)
    grid = Grid(bits=4, group=32)
    packed = round_compensated(weight, factorise(torch.eye(96) * 3), grid)
    scales = packed.matrix.scales.transpose(1, 2).flatten(0, 1)[:33].reshape(-1, 1).float()
    nearest_values = nearest(weight.view(-1, 32), scales, None, grid) * scales
    assert packed.matrix.unpack().equal(nearest_values.view(33, 96))
    assert packed.squared_error < round_matrix(weight, grid).squared_error
    silent = round_compensated(weight, factorise(torch.zeros(96, 96)), grid)
    assert silent.matrix.unpack().equal(packed.matrix.unpack())


def test_the_codes_are_those_of_the_papers_recursion() -> None:
    """Its step, in float64, with the whole inverse formed anew for each input, from the last to the first."""
    weight, x = torch.randn(24, 64), correlated(500, 64)
    products = products_of(x)
    hessian = products.tril().double() + products.tril(-1).double().T
    hessian += 0.01 * hessian.diagonal().mean() * torch.eye(64)
    matrix = round_compensated(weight, factorise(products), Grid(bits=4, group=32)).matrix
    scales = matrix.scales.transpose(1, 2).flatten(0, 1)[:24].double().repeat_interleave(32, dim=1)
    left, rounded = weight.double(), torch.zeros(24, 64).double()
    for place in range(63, -1, -1):
        inverse = hessian[: place + 1, : place + 1].inverse()
        rounded[:, place] = (left[:, place] / scales[:, place]).round().clamp(-8, 7) * scales[:, place]
        error = (left[:, place] - rounded[:, place]) / inverse[place, place]
        left = left[:, :place] - error[:, None] * inverse[place, :place]
    same = (rounded.float() - matrix.unpack()).abs() < 1e-5
    assert same.float().mean() > 0.99  # a tie may fall the other way, and what follows with it


def test_calibrations_that_are_no_use() -> None:
    with pytest.raises(CirciusError, match="not finite"):
        factorise(torch.full((32, 32), torch.nan))
    with pytest.raises(CirciusError, match="too few directions"):
        factorise(-torch.eye(32) + 2 * torch.ones(32, 32))
