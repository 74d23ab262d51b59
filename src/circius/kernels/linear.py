"""x @ weight.T with plain weights, on whatever processor there is.

On the CPU the native kernels read the weight where it lies (a mapped file, say) in its own number format, add in
float32 and round once; csrc/dense.h says in which order, which is the same for one row and for many. Elsewhere torch
multiplies.
"""

import ctypes
import struct
from collections.abc import Callable, Sequence
from functools import cache

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from circius.base.errors import CirciusError, InvalidInputError
from circius.kernels import native
from circius.kernels.precision import multiplies_fast

_WORTH_WIDENING = 8
"""From so many rows on, widening the weight costs torch less than multiplying it slowly (measured on AVX2)."""
_OUTPUTS_AT_ONCE = 512
_MOST_NATIVE_ROWS = {"fast": 4, "slow": 128}
"""Where torch is fast in the format, the native kernels only win while rows are so few that they wait for memory; where
it is slow, until widening the whole weight is a small part of the work."""
_MATRIX = struct.Struct("PPq")
"""struct circius_dense_matrix of csrc/dense.h."""
_TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
"""enum circius_number of csrc/half.h."""


def linear(x: Tensor, weight: Tensor, *, fixed_order: bool = False) -> Tensor:
    """The product of `x` (N, inputs) and `weight` (outputs, inputs), as (N, outputs) in the dtype of both."""
    return linears(x, (weight,), fixed_order=fixed_order)[0]


def linears(x: Tensor, weights: Sequence[Tensor], *, fixed_order: bool = False) -> tuple[Tensor, ...]:
    """The products of `x` (N, inputs) with weights of as many inputs; together they cost a little less than one by one.

    fixed_order: always by the native kernels, so that no bit of a row's result depends on the other rows; torch's
    products, which are faster for many rows, do not promise that.

    Raises:
        InvalidInputError: dtypes or numbers of inputs that do not fit together.
        CirciusError: a fixed order is wanted, and the native kernels cannot be used.
    """
    for weight in weights:
        if weight.ndim != 2 or x.ndim != 2 or weight.shape[1] != x.shape[1] or weight.dtype != x.dtype:
            raise InvalidInputError(
                f"a product takes x (rows, inputs) and weights (outputs, inputs) of one dtype, got {tuple(x.shape)} of "
                f"{x.dtype} and {tuple(weight.shape)} of {weight.dtype}"
            )
    if not _runs_native(x, weights, fixed_order=fixed_order):
        if fixed_order and len(x):
            raise CirciusError("sums in a fixed order need the native kernels, on the CPU and without gradients")
        return tuple(_by_torch(x, weight) for weight in weights)
    rows = x if x.stride(1) == 1 else x.contiguous()
    outs = tuple(x.new_empty(len(x), len(weight)) for weight in weights)
    matrices = b"".join(
        _MATRIX.pack(weight.data_ptr(), out.data_ptr(), len(weight)) for weight, out in zip(weights, outs, strict=True)
    )
    type_ = _TYPES[x.dtype]
    code = _function()(
        *(rows.data_ptr(), type_, rows.stride(0), *rows.shape, matrices, len(weights), type_, native.n_threads())
    )
    native.check(code)
    return outs


def _runs_native(x: Tensor, weights: Sequence[Tensor], *, fixed_order: bool) -> bool:
    if x.device.type != "cpu" or x.dtype not in _TYPES or torch.is_grad_enabled() or not native.available():
        return False
    most = _MOST_NATIVE_ROWS["fast" if multiplies_fast(x.dtype, x.device) else "slow"]
    if len(x) > most and not fixed_order:
        return False
    has_instructions = native.library().circius_isa() != native.ISAS["portable"]  # torch is faster than plain C
    return (
        (has_instructions or fixed_order)
        and x.numel() > 0
        and all(len(weight) and weight.is_contiguous() for weight in weights)
    )


def _by_torch(x: Tensor, weight: Tensor) -> Tensor:
    """Where the processor has no fast product in the dtype, many rows are multiplied in float32, some outputs of the
    weight at a time, and only the result is rounded. With gradients torch's own product is used."""
    if multiplies_fast(x.dtype, x.device) or len(x) < _WORTH_WIDENING or torch.is_grad_enabled():
        return F.linear(x, weight)
    wide = x.float()
    out = x.new_empty(len(x), len(weight))
    for rows, part in zip(torch.split(weight, _OUTPUTS_AT_ONCE), torch.split(out, _OUTPUTS_AT_ONCE, 1), strict=True):
        part.copy_(wide @ rows.float().T)
    return out


@cache
def _function() -> Callable[..., int]:
    pointer, count, integer = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    function = native.library().circius_dense
    function.argtypes = [pointer, integer, count, count, count, ctypes.c_char_p, count, integer, integer]
    return function
