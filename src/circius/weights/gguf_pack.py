"""GGUF's blocks in the order of our kernels: the same codes and scales at other places, without a second rounding.

What a block holds is in ggml's `ggml-common.h`; here, for 32 values: Q4_0 a scale and nibbles (the low halves of 16
bytes are the first 16 values, the high halves the others), Q4_1 a minimum besides, Q5_0 a fifth bit in a word of its
own, Q8_0 a scale and bytes. Q4_K holds 256 values: two scales of 16 bits, for each 32 values a scale and a minimum of
6 bits relative to those, and nibbles like Q4_0's. Its scales become 16-bit numbers of their own, which is a rounding,
though a far smaller one than that of 8 bits. Kinds that fit in no other way are rounded to 8 bits.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from torch import Tensor

from circius.kernels.packed import TILE, UNIT, PackedMatrix
from circius.weights.packed import part_shapes
from circius.weights.stored import Packed

_Bytes = npt.NDArray[np.uint8]
_Words = npt.NDArray[np.uint32]
_Pairs = npt.NDArray[np.uint64]
_Halves = npt.NDArray[np.float16]
_Kind = GGMLQuantizationType

_VALUES_AT_ONCE = 2**20  # put in order at one time by each thread: bounds the memory that it takes
_LOWER, _UPPER = np.uint64(0x0F0F0F0F), np.uint64(0xF0F0F0F0)


class _Blocks(NamedTuple):
    """Some rows in a layout of ours, before tiling: codes (rows, steps) as words of four bytes, and scales and minima
    (rows, groups)."""

    words: _Words
    scales: _Halves
    mins: _Halves | None = None
    squared_error: float = 0.0
    squared_norm: float = 0.0


def pack_blocks(rows: Tensor, kind: int, n_inputs: int, order: Tensor | None) -> Packed | None:
    """The matrix whose rows are the blocks `rows` (outputs, bytes) of this kind; None if ours cannot hold a value.

    That is the case for a code of -128, which our 8 bits leave out, and for scales that are not finite.

    order: the row that each output takes; None for each its own.
    """
    form = _FORMS.get(_Kind(kind)) or _Form(8, False, _requantise(_Kind(kind)))
    stored, places = rows.numpy(), None if order is None else order.numpy()
    n_outputs, n_threads = len(stored), torch.get_num_threads()
    at_once = min(_VALUES_AT_ONCE // n_inputs, n_outputs // n_threads) // TILE * TILE or TILE
    code_shape, scale_shape = part_shapes((n_outputs, n_inputs), bits=form.bits, group=UNIT)
    codes = torch.empty(code_shape, dtype=torch.uint8 if form.bits == 4 else torch.int8)
    scales = torch.empty(scale_shape, dtype=torch.float16)
    mins = torch.empty(scale_shape, dtype=torch.float16) if form.has_mins else None

    def fill(begin: int) -> tuple[float, float, bool]:
        picked = stored[begin : begin + at_once] if places is None else stored[places[begin : begin + at_once]]
        if missing := -len(picked) % TILE:
            picked = np.concatenate((picked, np.zeros((missing, picked.shape[1]), np.uint8)))
        taken = form.take(picked)
        tiles = slice(begin // TILE, (begin + len(picked)) // TILE)
        _tile(taken.words, codes[tiles].numpy().view(np.uint32))
        is_sound = kind != _Kind.Q8_0 or bool((codes[tiles].numpy() != -128).all())
        for halves, target in ((taken.scales, scales), (taken.mins, mins)):
            if halves is not None and target is not None:
                _tile(halves, target[tiles].numpy())
                is_sound = is_sound and bool(np.isfinite(halves).all())
        return taken.squared_error, taken.squared_norm, is_sound

    with ThreadPoolExecutor(n_threads) as pool:
        told = list(pool.map(fill, range(0, n_outputs, at_once)))
    if not all(is_sound for _, _, is_sound in told):
        return None
    matrix = PackedMatrix(n_outputs=n_outputs, codes=codes, scales=scales, mins=mins)
    return Packed(matrix, sum(error for error, _, _ in told), sum(norm for _, norm, _ in told))


def _tile(rows: npt.NDArray[np.generic], target: npt.NDArray[np.generic]) -> None:
    """Rows (outputs, steps) to tiles (tiles, steps, 16 outputs)."""
    target[...] = rows.reshape(-1, TILE, rows.shape[1]).transpose(0, 2, 1)


def _nibbles(pairs: _Pairs) -> _Words:
    """Steps of eight values from bytes whose low halves are some values and whose high halves the next ones.

    pairs: (..., n) of eight bytes. The first four and the last four of them make one step of either half.
    """
    steps = np.empty((*pairs.shape[:-1], 2, pairs.shape[-1]), np.uint32)
    step = pairs >> np.uint64(28)
    step &= _UPPER
    step |= pairs & _LOWER
    steps[..., 0, :] = step
    np.right_shift(pairs, np.uint64(32), out=step)
    step &= _UPPER
    step |= (pairs >> np.uint64(4)) & _LOWER
    steps[..., 1, :] = step
    return steps


def _fields(rows: _Bytes, **sizes: int) -> tuple[npt.NDArray[np.void], ...]:
    """The parts of each block, (rows, blocks) of that many bytes each, in memory of their own."""
    blocks = rows.view(np.dtype([(name, f"V{size}") for name, size in sizes.items()]))
    return tuple(blocks[name].copy() for name in sizes)


def _take_q4_0(rows: _Bytes) -> _Blocks:
    scales, nibbles = _fields(rows, scale=2, nibbles=16)
    return _Blocks(_nibbles(_pairs(nibbles, 2)).reshape(len(rows), -1), scales.view(np.float16))


def _take_q4_1(rows: _Bytes) -> _Blocks:
    scales, mins, nibbles = _fields(rows, scale=2, min=2, nibbles=16)
    words = _nibbles(_pairs(nibbles, 2)).reshape(len(rows), -1)
    return _Blocks(words, scales.view(np.float16), mins.view(np.float16))


def _take_q8_0(rows: _Bytes) -> _Blocks:
    scales, codes = _fields(rows, scale=2, codes=32)
    return _Blocks(codes.view(np.uint32), scales.view(np.float16))


def _take_q5_0(rows: _Bytes) -> _Blocks:
    """Five bits with the zero at 16 are whole numbers from -16 to 15: eight bits hold them as they are."""
    scales, fifths, nibbles = _fields(rows, scale=2, fifths=4, nibbles=16)
    four = nibbles.view(np.uint8).reshape(len(rows), -1, 16)
    fifth = np.unpackbits(fifths.view(np.uint8), axis=-1, bitorder="little").reshape(len(rows), -1, 32)
    codes = (np.concatenate((four & 15, four >> 4), axis=-1) | (fifth << 4)).view(np.int8) - np.int8(16)
    return _Blocks(codes.view(np.uint32).reshape(len(rows), -1), scales.view(np.float16))


def _take_q4_k(rows: _Bytes) -> _Blocks:
    both, sixes, nibbles = _fields(rows, both=4, sixes=12, nibbles=128)
    shared = both.view(np.float16).reshape(*both.shape, 2).astype(np.float32)
    low, middle, high = np.split(sixes.view(np.uint8).reshape(*sixes.shape, 12), 3, axis=-1)
    scale_codes = np.concatenate((low & 63, (high & 15) | ((low >> 2) & 48)), axis=-1)
    min_codes = np.concatenate((middle & 63, (high >> 4) | ((middle >> 2) & 48)), axis=-1)
    scales = (shared[..., :1] * scale_codes).astype(np.float16).reshape(len(rows), -1)
    mins = (-(shared[..., 1:] * min_codes)).astype(np.float16).reshape(len(rows), -1)
    taken = _Blocks(_nibbles(_pairs(nibbles, 4)).reshape(len(rows), -1), scales, mins)
    # What rounding the scales costs is looked at in one tile of those at hand: it is the same everywhere.
    exact = dequantize(rows[:TILE], _Kind.Q4_K)
    error, norm = _squares(_values_of_nibbles(taken, TILE) - exact), _squares(exact)
    return taken._replace(squared_error=error, squared_norm=norm)


def _pairs(nibbles: npt.NDArray[np.void], n: int) -> _Pairs:
    """The bytes by eights, and these by so many as hold neighbouring values: (rows, ..., n)."""
    return nibbles.view(np.uint64).reshape(len(nibbles), -1, n)


def _requantise(kind: _Kind) -> Callable[[_Bytes], _Blocks]:
    """A taker for any other kind: dequantised, and rounded to 8 bits in groups of 32."""

    def take(rows: _Bytes) -> _Blocks:
        values = dequantize(rows, kind).reshape(len(rows), -1, UNIT)
        scales = (np.abs(values).max(axis=-1) / np.float32(127)).astype(np.float16)
        step = scales.astype(np.float32)[..., None]
        codes = np.rint(np.divide(values, step, out=np.zeros_like(values), where=step > 0)).clip(-127, 127)
        words = codes.astype(np.int8).reshape(len(rows), -1).view(np.uint32)
        return _Blocks(words, scales, None, _squares(codes * step - values), _squares(values))

    return take


def _values_of_nibbles(taken: _Blocks, n_rows: int) -> npt.NDArray[np.float32]:
    steps = taken.words[:n_rows].view(np.uint8).reshape(n_rows, -1, 1, 4)
    grouped = np.concatenate((steps & 15, steps >> 4), axis=2).reshape(n_rows, -1, UNIT).astype(np.float32)
    assert taken.mins is not None
    values = grouped * taken.scales[:n_rows, :, None] + taken.mins[:n_rows, :, None]
    return values.reshape(n_rows, -1)


def _squares(values: npt.NDArray[np.float32]) -> float:
    flat = values.reshape(-1)
    return float(np.dot(flat, flat))


class _Form(NamedTuple):
    """What a kind becomes, and how."""

    bits: int
    has_mins: bool
    take: Callable[[_Bytes], _Blocks]


_FORMS = MappingProxyType(
    {
        _Kind.Q4_0: _Form(4, False, _take_q4_0),
        _Kind.Q4_1: _Form(4, True, _take_q4_1),
        _Kind.Q5_0: _Form(8, False, _take_q5_0),
        _Kind.Q8_0: _Form(8, False, _take_q8_0),
        _Kind.Q4_K: _Form(4, True, _take_q4_k),
    }
)
