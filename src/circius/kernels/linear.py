"""x @ weight.T on whatever processor there is."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from circius.kernels.precision import multiplies_fast

_WORTH_WIDENING = 8
"""From so many rows on, widening the weight costs less than multiplying it slowly (measured on AVX2)."""
_OUTPUTS_AT_ONCE = 512


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """The product of `x` (N, inputs) and `weight` (outputs, inputs), as (N, outputs) in the dtype of both.

    Where the processor has no fast product in that dtype, many rows are multiplied in float32, some outputs of the
    weight at a time, and only the result is rounded. With gradients torch's own product is used.
    """
    if multiplies_fast(x.dtype, x.device) or len(x) < _WORTH_WIDENING or torch.is_grad_enabled():
        return F.linear(x, weight)
    wide = x.float()
    out = x.new_empty(len(x), len(weight))
    for rows, part in zip(torch.split(weight, _OUTPUTS_AT_ONCE), torch.split(out, _OUTPUTS_AT_ONCE, 1), strict=True):
        part.copy_(wide @ rows.float().T)
    return out
