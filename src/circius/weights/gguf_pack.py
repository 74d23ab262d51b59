"""GGUF's blocks as packed matrices: the same codes and scales at other places, not rounded again where that can be.

What a block holds is in ggml's `ggml-common.h`. Q4_0, Q4_1 and Q8_0 are taken over as they are, and so is Q5_0, whose
five bits are whole numbers that eight bits hold. Q4_K gives each 32 values a scale and a minimum of 6 bits relative to
two shared ones; here they become 16-bit numbers of their own, which is a rounding, though a far smaller one than of the
values to 8 bits. All other kinds have no such way and are rounded to 8 bits in groups of 32.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from torch import Tensor

from circius.kernels.blocks import BlockForm, Tiles, tile_blocks
from circius.kernels.packed import TILE, UNIT, PackedMatrix
from circius.weights.stored import Packed

_Bytes = npt.NDArray[np.uint8]
_Codes = npt.NDArray[np.int8]
_Halves = npt.NDArray[np.float16]
_Floats = npt.NDArray[np.float32]
_Kind = GGMLQuantizationType
_Values = Callable[[_Bytes], tuple[_Codes, _Halves, _Floats | None]]

_IN_PLACE = MappingProxyType(
    {
        _Kind.Q4_0: BlockForm(n_bytes=18, n_values=32, codes_at=2, run=16, scale_at=0),
        _Kind.Q4_1: BlockForm(n_bytes=20, n_values=32, codes_at=4, run=16, scale_at=0, min_at=2),
        _Kind.Q8_0: BlockForm(n_bytes=34, n_values=32, codes_at=2, scale_at=0),
    }
)
_Q4_K = BlockForm(n_bytes=144, n_values=256, codes_at=16, run=32)
_BYTES = BlockForm(n_bytes=UNIT, n_values=UNIT, codes_at=0)

_VALUES_AT_ONCE = 2**20  # taken apart at one time by each thread: bounds the memory that it takes
_SAMPLE_EVERY = 16  # of so many tiles, one is looked at for what rounding its scales has changed


def pack_blocks(rows: Tensor, kind: int, order: Tensor | None) -> Packed | None:
    """The matrix whose rows are the blocks `rows` (outputs, bytes) of this kind; None if ours cannot hold a value.

    That is the case for a code of -128, which our 8 bits leave out, and for scales that are not finite. Needs the
    native library.

    order: the row that each output takes; None for each its own.
    """
    if kind in _IN_PLACE:
        tiles = tile_blocks(_IN_PLACE[_Kind(kind)], rows, order)
        return Packed(_matrix(len(rows), tiles)) if tiles.is_sound else None
    if order is not None:
        rows = rows[order]
    return _pack_q4_k(rows) if kind == _Kind.Q4_K else _pack_bytes(rows, _Kind(kind))


def _matrix(n_outputs: int, tiles: Tiles) -> PackedMatrix:
    return PackedMatrix(n_outputs=n_outputs, codes=tiles.codes, scales=tiles.scales, mins=tiles.mins)


def _pack_q4_k(rows: Tensor) -> Packed | None:
    tiles = tile_blocks(_Q4_K, rows)
    blocks = rows.view(len(rows), -1, _Q4_K.n_bytes).numpy()
    shared = blocks[..., :4].copy().view(np.float16).astype(np.float32)
    low, middle, high = blocks[..., 4:8], blocks[..., 8:12], blocks[..., 12:16]
    scale_codes = np.concatenate((low & 63, (high & 15) | ((low >> 2) & 48)), axis=-1)
    min_codes = np.concatenate((middle & 63, (high >> 4) | ((middle >> 2) & 48)), axis=-1)
    scales = (shared[..., :1] * scale_codes).astype(np.float16).reshape(len(rows), -1)
    mins = (-(shared[..., 1:] * min_codes)).astype(np.float16).reshape(len(rows), -1)
    if not (np.isfinite(scales).all() and np.isfinite(mins).all()):
        return None
    matrix = _matrix(len(rows), tiles._replace(scales=_tiled(scales), mins=_tiled(mins)))
    error = norm = 0.0
    for tile in range(0, len(matrix.codes), _SAMPLE_EVERY):
        exact = dequantize(rows[tile * TILE : (tile + 1) * TILE].numpy(), _Kind.Q4_K)
        error += _squares(matrix.unpack(slice(tile, tile + 1)).numpy() - exact)
        norm += _squares(exact)
    return Packed(matrix, error, norm)


def _pack_bytes(rows: Tensor, kind: _Kind) -> Packed | None:
    """Any kind as codes of 8 bits, some rows at a time."""
    take: _Values = _values_of_q5_0 if kind == _Kind.Q5_0 else _values_of(kind)
    n_outputs, n_inputs = len(rows), _n_inputs(rows, kind)
    codes = np.empty((n_outputs, n_inputs), np.int8)
    scales = np.empty((n_outputs, n_inputs // UNIT), np.float16)

    def fill(begin: int) -> tuple[float, float]:
        some = slice(begin, begin + at_once)
        codes[some], scales[some], exact = take(rows[some].numpy())
        if exact is None:
            return 0.0, 0.0
        found = codes[some].reshape(exact.shape) * scales[some, :, None].astype(np.float32)
        return _squares(found - exact), _squares(exact)

    at_once = max(1, _VALUES_AT_ONCE // n_inputs)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        told = list(pool.map(fill, range(0, n_outputs, at_once)))
    if not np.isfinite(scales).all():
        return None
    tiles = tile_blocks(_BYTES, torch.from_numpy(codes).view(torch.uint8))._replace(scales=_tiled(scales))
    return Packed(_matrix(n_outputs, tiles), sum(error for error, _ in told), sum(norm for _, norm in told))


def _n_inputs(rows: Tensor, kind: _Kind) -> int:
    return dequantize(rows[:1].numpy(), kind).size


def _values_of_q5_0(rows: _Bytes) -> tuple[_Codes, _Halves, None]:
    blocks = rows.reshape(len(rows), -1, 22)
    fifth = np.unpackbits(blocks[..., 2:6], axis=-1, bitorder="little")
    four = np.concatenate((blocks[..., 6:] & 15, blocks[..., 6:] >> 4), axis=-1)
    codes = (four | (fifth << 4)).view(np.int8) - np.int8(16)
    return codes.reshape(len(rows), -1), blocks[..., :2].copy().view(np.float16)[..., 0], None


def _values_of(kind: _Kind) -> _Values:
    def take(rows: _Bytes) -> tuple[_Codes, _Halves, _Floats]:
        """To the nearest code; a group of zeros has the scale 0."""
        values = dequantize(rows, kind).reshape(len(rows), -1, UNIT)
        scales = (np.abs(values).max(axis=-1) / np.float32(127)).astype(np.float16)
        step = scales.astype(np.float32)[..., None]
        codes = np.divide(values, step, out=np.zeros_like(values), where=step > 0)
        return np.rint(codes).clip(-127, 127).astype(np.int8).reshape(len(rows), -1), scales, values

    return take


def _tiled(rows: _Halves) -> Tensor:
    """Numbers (outputs, groups) as (tiles, groups, 16), with zeros for outputs past the last."""
    padded = np.pad(rows, ((0, -len(rows) % TILE), (0, 0)))
    return torch.from_numpy(padded.reshape(-1, TILE, rows.shape[1]).transpose(0, 2, 1).copy())


def _squares(values: _Floats) -> float:
    flat = values.reshape(-1)
    return float(np.dot(flat, flat))
