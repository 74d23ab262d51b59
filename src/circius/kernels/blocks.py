"""GGUF's blocks of quantised values put in the order of packed matrices, by the native library."""

import ctypes
from collections.abc import Callable
from functools import cache
from types import MappingProxyType

import torch
from torch import Tensor

from circius.base.errors import InvalidInputError
from circius.kernels import native
from circius.kernels.packed import TILE, UNIT, PackedMatrix

_FORMS = MappingProxyType(
    {
        2: (4, False),  # Q4_0
        3: (4, True),  # Q4_1
        6: (8, False),  # Q5_0
        7: (8, False),  # Q5_1
        8: (8, False),  # Q8_0
        12: (4, True),  # Q4_K
        13: (8, False),  # Q5_K
        14: (8, False),  # Q6_K
    }
)
"""The bits, and whether there are minima, of what a kind becomes; by ggml's numbers, as in csrc/blocks.h."""
_WORTH_THREADS = 2**22
"""Bytes that one thread puts in order in a millisecond or two, which is how long others may take to come."""


def take_blocks(
    kind: int, rows: Tensor, n_inputs: int, order: Tensor | None = None
) -> tuple[PackedMatrix, float, float] | None:
    """The matrix of `rows` (outputs, bytes), uint8, in groups of 32, and two sums of squares over a part of its values:
    of what was rounded on the way (0 for the kinds that are not) and of the values.

    None if a packed matrix cannot hold them: a code is -128, which our 8 bits leave out, or a scale is not finite.
    Needs the native library; csrc/blocks.h says which kinds are rounded.

    kind: by ggml's number. order: (outputs,) int64, the row that each output takes; None for each its own.

    Raises:
        InvalidInputError: a kind that is not known here.
    """
    if kind not in _FORMS:
        raise InvalidInputError(f"blocks of kind {kind} cannot be packed: known are {', '.join(map(str, _FORMS))}")
    assert rows.dtype == torch.uint8
    assert rows.is_contiguous()
    bits, has_mins = _FORMS[kind]
    n_tiles = -(-len(rows) // TILE)
    codes = torch.empty(n_tiles, n_inputs * bits // 32, 4 * TILE, dtype=torch.uint8 if bits == 4 else torch.int8)
    scales = torch.empty(n_tiles, n_inputs // UNIT, TILE, dtype=torch.float16)
    mins = torch.empty_like(scales) if has_mins else None
    told, odd = torch.empty(n_tiles, 2, dtype=torch.float64), ctypes.c_int32()
    code = _function()(
        kind,
        rows.data_ptr(),
        rows.shape[1],
        None if order is None else order.data_ptr(),
        len(rows),
        n_inputs,
        codes.data_ptr(),
        scales.data_ptr(),
        None if mins is None else mins.data_ptr(),
        told.data_ptr(),
        ctypes.byref(odd),
        native.n_threads() if rows.numel() >= _WORTH_THREADS else 1,
    )
    native.check(code)
    if odd.value:
        return None
    error, norm = told.sum(dim=0).tolist()
    return PackedMatrix(n_outputs=len(rows), codes=codes, scales=scales, mins=mins), error, norm


@cache
def _function() -> Callable[..., int]:
    pointer, long = ctypes.c_void_p, ctypes.c_int64
    function = native.library()["circius_take_blocks"]
    function.argtypes = (
        *(ctypes.c_int, pointer, long, pointer, long, long),
        *(pointer, pointer, pointer, pointer, pointer, ctypes.c_int),
    )
    return function
