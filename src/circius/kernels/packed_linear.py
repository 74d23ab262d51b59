"""x @ weight.T with packed weights: by the native kernels where they are, else by torch on unpacked blocks.

With `activations="int8"` the native kernels round each row of x to 8 bits, in units of 32 inputs with a scale of their
own, and multiply in whole numbers; csrc/matmul.h says how, to the last bit. The result of a row depends on nothing but
that row and the matrix. With `activations="float"`, and wherever torch does the work, x is not rounded.
"""

import ctypes
import struct
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.autograd.function import once_differentiable

from circius.base.errors import CirciusError, InvalidInputError
from circius.kernels import native
from circius.kernels.packed import TILE, PackedMatrix
from circius.kernels.precision import multiplies_fast

Activations = Literal["int8", "float"]

_MATRIX = struct.Struct("PPPqqqii")
"""struct circius_matrix of csrc/matmul.h."""
_PLACE = struct.Struct("Pq")
"""What follows it in struct circius_product."""
_TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
"""enum circius_number of csrc/half.h."""
_FEW_ROWS = 12
"""Up to so many rows are multiplied without unpacking the matrix, if they are not to be rounded."""
_UNPACKED_AT_ONCE = 2**21
"""Numbers in one block of unpacked weights, which should still be in the cache when they are multiplied."""


def packed_linear(x: Tensor, matrix: PackedMatrix, activations: Activations = "int8") -> Tensor:
    """The product of `x` (N, inputs) and the matrix, as (N, outputs) in the dtype of x; see `packed_linears`."""
    return packed_linears(x, (matrix,), activations)[0]


def packed_linears(
    x: Tensor, matrices: Sequence[PackedMatrix], activations: Activations = "int8", *, fixed_order: bool = False
) -> tuple[Tensor, ...]:
    """The products of `x` (N, inputs), of any floating dtype, with matrices of as many inputs, each in the dtype of x.

    Together they cost less than one by one: x is rounded once, and threads start once. If a gradient must reach x,
    torch multiplies, without rounding x.

    fixed_order: no bit of a row's result may depend on the other rows; with rounded inputs that is so anyway.

    Raises:
        CirciusError: a fixed order is wanted for unrounded inputs, and there are no native kernels for it.
        InvalidInputError: x does not fit the matrices, or lies on another device.
    """
    _check(x, matrices, activations)
    if activations == "float" and fixed_order and len(x):
        return _in_fixed_order(x, matrices)
    if x.requires_grad and torch.is_grad_enabled():
        return tuple(_Differentiable.apply(x, matrix) for matrix in matrices)  # type: ignore[no-untyped-call]
    if not runs_native(x, matrices) or (activations == "float" and not _takes_few_rows(len(x))):
        return tuple(_by_blocks(x, matrix) for matrix in matrices)
    rows = x.float()
    if rows.stride(1) != 1:
        rows = rows.contiguous()
    outs = [torch.empty(len(x), matrix.n_outputs) for matrix in matrices]
    products = [
        described(matrix) + _PLACE.pack(out.data_ptr(), matrix.n_outputs)
        for matrix, out in zip(matrices, outs, strict=True)
    ]
    place = (rows.data_ptr(), rows.stride(0), len(x))
    if activations == "float":
        for product in products:
            native.check(_function("circius_float_linear")(*place, product, native.n_threads()))
    elif len(x):
        code = _function("circius_packed_linears")(*place, b"".join(products), len(products), native.n_threads())
        native.check(code)
    return tuple(outs) if x.dtype == torch.float32 else tuple(out.to(x.dtype) for out in outs)


def _in_fixed_order(x: Tensor, matrices: Sequence[PackedMatrix]) -> tuple[Tensor, ...]:
    """A few rows at a time, each of which comes out as it would alone."""
    if not runs_native(x, matrices) or not _takes_few_rows(1):
        raise CirciusError("sums in a fixed order need the native kernels, on the CPU and without gradients")
    parts = [packed_linears(part, matrices, "float") for part in torch.split(x, _FEW_ROWS)]
    return tuple(torch.cat(own) for own in zip(*parts, strict=True))


def runs_native(x: Tensor, matrices: Sequence[PackedMatrix]) -> bool:
    """Whether `packed_linears` would use the native kernels, which work on the CPU, without gradients."""
    return (
        native.available()
        and x.device.type == "cpu"
        and not (x.requires_grad and torch.is_grad_enabled())
        and all(matrix.codes.is_contiguous() and matrix.scales.is_contiguous() for matrix in matrices)
    )


def unpack(matrix: PackedMatrix, tiles: slice = slice(None), dtype: torch.dtype = torch.float32) -> Tensor:
    """`matrix.unpack(tiles)` in float32 or bfloat16, by the native kernel where there is one."""
    if not native.available() or matrix.codes.device.type != "cpu" or dtype not in (torch.float32, torch.bfloat16):
        return matrix.unpack(tiles).to(dtype)
    begin, end, step = tiles.indices(len(matrix.codes))
    if step != 1:
        raise InvalidInputError(f"tiles to unpack must be neighbours, got a slice with step {step}")
    n_outputs = max(0, min(matrix.n_outputs, end * TILE) - begin * TILE)
    out = torch.empty(n_outputs, matrix.n_inputs, dtype=dtype)
    if n_outputs:
        code = _function("circius_unpack")(
            *(described(matrix), begin, end - begin, _TYPES[dtype], out.data_ptr(), matrix.n_inputs),
            native.n_threads(),
        )
        native.check(code)
    return out


def _takes_few_rows(n_rows: int) -> bool:
    """Whether there is a native product for so few rows that unpacking the matrix for them would take longer."""
    return 0 < n_rows <= _FEW_ROWS and bool(native.library().circius_has_float_linear())


class _Differentiable(torch.autograd.Function):
    """The product with the gradient of x, for which the matrix is unpacked again: values that were kept on the way
    there would fill the memory that packing saves."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: PackedMatrix) -> Tensor:
        ctx.matrix = matrix
        return _by_blocks(x, matrix)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        matrix, dtype = ctx.matrix, _products_in(grad)
        wide = grad.to(dtype)
        sums = grad.new_zeros(len(grad), matrix.n_inputs, dtype=torch.float32)
        for block in _blocks(matrix):
            sums += wide[:, block.start * TILE : block.stop * TILE] @ unpack(matrix, block, dtype)
        return sums.to(grad.dtype), None


def _by_blocks(x: Tensor, matrix: PackedMatrix) -> Tensor:
    """Unpacks some outputs at a time and multiplies them with torch."""
    dtype = _products_in(x)
    wide = x.to(dtype)
    out = x.new_empty(len(x), matrix.n_outputs)
    for block in _blocks(matrix):
        out[:, block.start * TILE : block.stop * TILE] = F.linear(wide, unpack(matrix, block, dtype))
    return out


def _blocks(matrix: PackedMatrix) -> list[slice]:
    """The tiles to unpack at one time."""
    tiles = max(1, _UNPACKED_AT_ONCE // (matrix.n_inputs * TILE))
    return [slice(begin, begin + tiles) for begin in range(0, len(matrix.codes), tiles)]


def _products_in(x: Tensor) -> torch.dtype:
    """float32, or what x is in if the processor is fast in it."""
    return x.dtype if multiplies_fast(x.dtype, x.device) else torch.float32


def _check(x: Tensor, matrices: Sequence[PackedMatrix], activations: str) -> None:
    if not matrices or activations not in ("int8", "float"):
        raise InvalidInputError(
            f"packed products need at least one matrix and activations of 'int8' or 'float', got {len(matrices)} "
            f"matrices and {activations!r}"
        )
    if x.ndim != 2 or not x.is_floating_point():
        raise InvalidInputError(f"x must be (rows, inputs) of a floating dtype, got {tuple(x.shape)} of {x.dtype}")
    for matrix in matrices:
        if matrix.n_inputs != x.shape[1]:
            raise InvalidInputError(f"x of {x.shape[1]} inputs does not fit a matrix of {matrix.n_inputs}")
        if matrix.codes.device != x.device:
            raise InvalidInputError(f"x is on {x.device}, the matrix on {matrix.codes.device}: move one of them")


def described(matrix: PackedMatrix) -> bytes:
    """The matrix as the library sees it. Kept with the matrix, and made anew if its tensors have moved since."""
    mins = matrix.mins
    places = (matrix.codes.data_ptr(), matrix.scales.data_ptr(), 0 if mins is None else mins.data_ptr())
    kept: tuple[tuple[int, int, int], bytes] | None = matrix.__dict__.get("_native")
    if kept is not None and kept[0] == places:
        return kept[1]
    type_ = _TYPES[matrix.scales.dtype]
    made = _MATRIX.pack(*places, matrix.n_outputs, matrix.n_inputs, matrix.group, matrix.bits, type_)
    matrix.__dict__["_native"] = (places, made)
    return made


@cache
def _function(name: str) -> Callable[..., int]:
    pointer, long, integer = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    arguments: dict[str, list[Any]] = {
        "circius_packed_linears": [pointer, long, long, ctypes.c_char_p, long, integer],
        "circius_float_linear": [pointer, long, long, ctypes.c_char_p, integer],
        "circius_unpack": [ctypes.c_char_p, long, long, integer, pointer, long, integer],
    }
    function = native.library()[name]
    function.argtypes = arguments[name]
    return function
