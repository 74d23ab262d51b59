"""Rounding that makes up for its own errors (GPTQ, arXiv 2210.17323).

The inputs of a layer are correlated, so the error of one weight can be taken back by the weights of other inputs that
are not rounded yet. With H the sum of x x^T over calibration inputs x and H = L L^T, the squared error of the layer's
outputs for a row of errors d is |d L|^2, and L is triangular: entry j of d L depends on the errors from j on alone. So
the inputs are rounded from the last to the first, each to the value nearest to the one that would make its entry zero.
That is GPTQ's result without the inverse of H that the paper forms first: one factorisation, in place.
"""

import math

import torch
from torch import Tensor

from circius.base.errors import CirciusError
from circius.quant.grid import Grid, Steps, fit, nearest
from circius.quant.rounding import packed_rows
from circius.weights.stored import Packed

DAMPING = 0.01
_BLOCK = 1024


def round_compensated(weight: Tensor, factor: Tensor, grid: Grid) -> Packed:
    """The packed matrix whose outputs are near those of `weight` (outputs, inputs) in float32, and its squared error.

    The scale of a group is chosen when its inputs are reached, for what earlier errors have made of its weights.

    factor: (inputs, inputs), the triangle of `factorise`; what is above its diagonal is not read.
    """
    weights = weight.T.contiguous()  # input after input is rounded
    errors = torch.zeros_like(weights)
    numbers = torch.empty_like(weights, dtype=torch.int8)
    scales: list[Tensor] = []
    mins: list[Tensor] = []
    for end in range(len(weights), 0, -grid.group):
        inputs = slice(end - grid.group, end)
        carried = factor[end:, inputs].T @ errors[end:]
        steps = _round_group(weights[inputs], factor[inputs, inputs], carried, grid, errors[inputs], numbers[inputs])
        scales.insert(0, steps.scale)
        if steps.min is not None:
            mins.insert(0, steps.min)
    by_row = Steps(torch.stack(scales, dim=1).flatten(), torch.stack(mins, dim=1).flatten() if mins else None)
    matrix = packed_rows(numbers.T, by_row, grid)
    return Packed(matrix, float(errors.square().sum()), float(weights.square().sum()))


def add_products(products: Tensor, x: Tensor) -> None:
    """Adds x^T x of inputs `x` (tokens, inputs) to `products`; above the diagonal only in the blocks that lie on it."""
    for begin in range(0, len(products), _BLOCK):
        block = slice(begin, begin + _BLOCK)
        products[begin:, block].addmm_(x[:, begin:].T, x[:, block])


def factorise(products: Tensor, *, damping: float = DAMPING) -> Tensor:
    """The lower triangle L of products = L L^T, in their place; above it something else.

    Block by block, because torch's own function would need the matrix twice.

    products: (inputs, inputs) in float32, the sum of x x^T as `add_products` leaves it.
    damping: added to the diagonal, as a part of its mean: how little the calibration is trusted.

    Raises:
        CirciusError: the products are not finite, or span too little for numbers in float32.
    """
    diagonal = products.diagonal()
    mean = float(diagonal.mean())
    if not math.isfinite(mean):
        raise CirciusError("the model's activations on the calibration text are not finite: its weights are damaged")
    diagonal.add_(damping * mean if mean > 0 else 1.0)
    for begin in range(0, len(products), _BLOCK):
        block, below = slice(begin, begin + _BLOCK), slice(begin + _BLOCK, None)
        if begin:
            products[begin:, block].addmm_(products[begin:, :begin], products[block, :begin].T, alpha=-1)
        corner = products[block, block]
        triangle, failed = torch.linalg.cholesky_ex(corner)
        if failed:
            raise CirciusError(
                "the calibration's activations span too few directions to make up for errors: give a longer text"
            )
        corner.copy_(triangle)
        if len(products) > begin + _BLOCK:
            products[below, block] = torch.linalg.solve_triangular(
                triangle.T, products[below, block], upper=True, left=False
            )
    return products


def _round_group(
    weights: Tensor, factor: Tensor, carried: Tensor, grid: Grid, errors: Tensor, numbers: Tensor
) -> Steps:
    """Rounds the weights (group, outputs) of one group of inputs; fills in `errors` and `numbers`, of the same shape.

    factor: the group's own square of the triangle. carried: what the errors so far add to the group's entries.
    """
    # Were nothing rounded, these values would bring all entries of the group to zero: the scale has to suit them.
    ideal = weights + torch.linalg.solve_triangular(factor.T, carried, upper=True)
    diagonal = factor.diagonal()
    steps = fit(ideal.T.contiguous(), grid, importance=diagonal.square()[None])
    scale, least = (None if step is None else step.float() for step in steps)
    assert scale is not None
    for place in range(len(weights) - 1, -1, -1):
        after = slice(place + 1, None)
        entry = carried[place] + factor[after, place] @ errors[after]
        number = nearest(weights[place] + entry / diagonal[place], scale, least, grid)
        value = number * scale if least is None else number * scale + least
        errors[place] = weights[place] - value
        numbers[place] = number
    return steps
