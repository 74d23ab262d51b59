"""Muon (Jordan et al. 2024): the step of a matrix is its momentum, with all singular values made nearly 1.

`torch.optim.Muon` does the same in bfloat16 whatever the processor: on a CPU without units for it a step of a small
model takes twenty times as long as in float32. Here the number format follows the processor, and matrices of one shape
are worked on together, which on a GPU spares thousands of small launches. tests/unit/train/test_muon.py compares both.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from circius.base.errors import InvalidInputError
from circius.kernels.precision import multiplies_fast

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the polynomial that Jordan found to lift small singular values fastest; it ends between 0.7 and 1.2."""
_N_ITERATIONS = 5
_LEAST_NORM = 1e-7
_NUMBERS_AT_ONCE = 2**26
"""Of the matrices that are stacked: bounds the memory that it takes."""


class Muon(torch.optim.Optimizer):
    """For matrices only. A step has the root mean square of one of AdamW's, so that its learning rate and weight decay
    can be used (arXiv 2502.16982).

    Raises:
        InvalidInputError: a parameter that is no matrix.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], *, lr: float, weight_decay: float, momentum: float) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.ndim != 2:
                    raise InvalidInputError(f"Muon takes matrices, got a parameter of shape {tuple(matrix.shape)}")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        assert closure is None, "Muon takes gradients that are there"
        for group in self.param_groups:
            trained = [matrix for matrix in group["params"] if matrix.grad is not None]
            for matrices in _alike(trained):
                self._step_together(matrices, group)

    def _step_together(self, matrices: list[nn.Parameter], group: dict[str, Any]) -> None:
        momentum = group["momentum"]
        updates = []
        for matrix in matrices:
            assert matrix.grad is not None
            state = self.state[matrix]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(matrix.grad)
            buffer = state["momentum_buffer"].lerp_(matrix.grad, 1 - momentum)
            updates.append(matrix.grad.lerp(buffer, momentum))
        size = 0.2 * max(matrices[0].shape) ** 0.5
        for matrix, direction in zip(matrices, orthogonal(torch.stack(updates)), strict=True):
            matrix.mul_(1 - group["lr"] * group["weight_decay"])
            matrix.add_(direction.to(matrix.dtype), alpha=-group["lr"] * size)


def orthogonal(matrices: Tensor) -> Tensor:
    """Nearly U V^T for each of `matrices` (n, rows, columns) = U S V^T, by Newton and Schulz's iteration.

    In bfloat16 where the processor is fast in it, else float32: its errors are small beside those of the iteration.
    """
    fast = torch.bfloat16 if multiplies_fast(torch.bfloat16, matrices.device) else torch.float32
    x = matrices.to(fast)
    is_tall = x.shape[1] > x.shape[2]
    x = x.mT if is_tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=_LEAST_NORM)
    a, b, c = _COEFFICIENTS
    for _ in range(_N_ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


def _alike(matrices: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Those of one shape together, as many as may be stacked."""
    for shape, own in groupby(
        sorted(matrices, key=lambda matrix: tuple(matrix.shape)), key=lambda matrix: matrix.shape
    ):
        alike, n = list(own), max(1, _NUMBERS_AT_ONCE // (shape[0] * shape[1]))
        yield from (alike[begin : begin + n] for begin in range(0, len(alike), n))
