"""Blocks of quantised values in a row, as GGUF files have them, put in the order of packed matrices by the library."""

import ctypes
import struct
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from circius.kernels import native
from circius.kernels.packed import TILE, UNIT

_FORM = struct.Struct("6i")
_WORTH_THREADS = 2**22
"""Bytes that one thread puts in order in a millisecond or two, which is how long others may take to come."""


class BlockForm(NamedTuple):
    """Where the parts of a block are, in bytes from its start: struct circius_block_form of csrc/blocks.h."""

    n_bytes: int
    n_values: int
    codes_at: int
    run: int = 0
    """0 for a code a byte; else how many bytes in a row hold neighbouring values in their low halves, and the next ones
    in their high halves."""
    scale_at: int = -1
    min_at: int = -1


class Tiles(NamedTuple):
    """What a packed matrix in groups of 32 is made of; `is_sound` is false if it could not hold a code or a scale."""

    codes: Tensor
    scales: Tensor
    mins: Tensor | None
    is_sound: bool


def tile_blocks(form: BlockForm, rows: Tensor, order: Tensor | None = None) -> Tiles:
    """Codes, scales and minima of `rows` (outputs, bytes), uint8, in tiles; needs the native library.

    Scales and minima that are not in the blocks are left for the caller to fill in: the scales hold anything then.

    order: (outputs,) int64, the row that each output takes; None for each its own.
    """
    assert rows.dtype == torch.uint8
    assert rows.is_contiguous()
    n_outputs, row_bytes = rows.shape
    n_inputs = row_bytes // form.n_bytes * form.n_values
    n_tiles = -(-n_outputs // TILE)
    codes_dtype, bits = (torch.uint8, 4) if form.run else (torch.int8, 8)
    codes = torch.empty(n_tiles, n_inputs * bits // 32, 4 * TILE, dtype=codes_dtype)
    scales = torch.empty(n_tiles, n_inputs // UNIT, TILE, dtype=torch.float16)
    mins = torch.empty_like(scales) if form.min_at >= 0 else None
    odd = ctypes.c_int32()
    code = _function()(
        _FORM.pack(*form),
        rows.data_ptr(),
        row_bytes,
        None if order is None else order.data_ptr(),
        n_outputs,
        n_inputs,
        codes.data_ptr(),
        scales.data_ptr(),
        None if mins is None else mins.data_ptr(),
        ctypes.byref(odd),
        native.n_threads() if rows.numel() >= _WORTH_THREADS else 1,
    )
    native.check(code)
    return Tiles(codes, scales, mins, is_sound=not odd.value)


@cache
def _function() -> Callable[..., int]:
    pointer, long = ctypes.c_void_p, ctypes.c_int64
    function = native.library()["circius_tile_blocks"]
    function.argtypes = (
        *(ctypes.c_char_p, pointer, long, pointer, long, long),
        *(pointer, pointer, pointer, pointer, ctypes.c_int),
    )
    return function
