"""The two ways in which a forward meets rings with torch's operations: a chunk, or one token for each of some rows.

They are taken where the native library is not, and where gradients are needed. Slots need no order: what a query sees
follows from positions alone, through `window.visible`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from circius.base.config import Window
from circius.kernels.attention import Stretch, attend
from circius.model.shelf import Rounded, Shelf, rounded, slot_positions
from circius.model.step import Band, Past
from circius.model.window import visible


class ChunkPiece:
    """Several new tokens of one row.

    While the row fits into its ring, they are written first and read back with all that is before them, in place.
    Once it wraps, they attend to the old ring and to each other before the last S of them are written: reading before
    writing makes any chunk length exact, longer than the window too.
    """

    def __init__(self, shelf: Shelf, row: int, window: Window, *, tokens: slice, start: int, n_heads: int) -> None:
        self.tokens = tokens
        self._shelf, self._row = shelf, slice(row, row + 1)
        n_tokens = tokens.stop - tokens.start
        end = start + n_tokens
        self._n_used = end if end <= shelf.n_slots else min(start, shelf.n_slots)
        self._writes_first = end <= shelf.n_slots
        n_past = 0 if self._writes_first else self._n_used
        self._band = Band(
            window,
            n_heads=n_heads,
            n_tokens=n_tokens,
            start=start,
            origin=0 if self._writes_first else start,
            past_positions=slot_positions(torch.tensor([start], device=shelf.device), shelf.n_slots)[0, :n_past],
        )
        self._writes = _ring_writes(start, n_tokens, shelf.n_slots)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        shelf, dtype = self._shelf, query.dtype
        new_keys, new_values = (rounded(x.detach().transpose(0, 1), shelf.dtype) for x in (key, value))
        if self._writes_first:
            self._write(layer, new_keys, new_values)
        keys = shelf.keys(layer, self._row, self._n_used).read(dtype)
        values = shelf.values(layer, self._row, self._n_used).read(dtype)
        if self._writes_first:
            return self._band.attend(query[None], keys, values)[0]
        past = Past(keys, values) if self._n_used else None
        if shelf.dtype == key.dtype:  # as they are, so that gradients pass
            fresh = [x.transpose(0, 1) for x in (key, value)]
        else:
            fresh = [x.read(dtype) for x in (new_keys, new_values)]
        own_keys, own_values = (x[None].contiguous() for x in fresh)
        mixed = self._band.attend(query[None], own_keys, own_values, past)[0]
        self._write(layer, new_keys, new_values)
        return mixed

    def _write(self, layer: int, key: Rounded, value: Rounded) -> None:
        for slots, places in self._writes:
            self._shelf.write(layer, self._row, slots, _part(key, places), _part(value, places))


def _part(x: Rounded, places: slice) -> Rounded:
    return Rounded(x.numbers[:, places], None if x.scales is None else x.scales[:, places])


def _ring_writes(start: int, n_tokens: int, n_slots: int) -> list[tuple[slice, slice]]:
    """Which slots take which tokens of a chunk: its last `n_slots` at most, in one or two stretches.

    >>> _ring_writes(start=3, n_tokens=3, n_slots=4)  # positions 3, 4, 5 go to slots 3, 0, 1
    [(slice(3, 4, None), slice(0, 1, None)), (slice(0, 2, None), slice(1, 3, None))]
    """
    kept = min(n_tokens, n_slots)
    first = n_tokens - kept
    slot = (start + first) % n_slots
    before_wrap = min(kept, n_slots - slot)
    writes = [(slice(slot, slot + before_wrap), slice(first, first + before_wrap))]
    if before_wrap < kept:
        writes.append((slice(0, kept - before_wrap), slice(first + before_wrap, n_tokens)))
    return writes


class DecodePiece:
    """One new token for each of some neighbouring rows: written first, then the rings are read where they lie.

    Writing first is exact here: the slot that a token takes held the position S before it, which has just left the
    window (or was never filled).
    """

    def __init__(self, shelf: Shelf, rows: slice, window: Window, *, tokens: slice, starts: Sequence[int]) -> None:
        self.tokens = tokens
        self._shelf, self._rows = shelf, rows
        used = [min(start + 1, shelf.n_slots) for start in starts]
        self._n_used = max(used)
        at = torch.tensor(starts, device=shelf.device)
        self._single_slot = starts[0] % shelf.n_slots if len(starts) == 1 else None
        self._slots = at % shelf.n_slots
        self._row_numbers = torch.arange(rows.start, rows.stop, device=shelf.device)
        self._visible: Tensor | None = None
        # Without a mask every used slot of every row is inside its window.
        if min(used) < self._n_used or (window is not None and self._n_used > window):
            held = slot_positions(at + 1, shelf.n_slots)[:, None, : self._n_used]
            self._visible = visible(at[:, None, None], held, window)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        shelf = self._shelf
        if self._single_slot is None:
            new_keys, new_values = (rounded(x.detach(), shelf.dtype) for x in (key, value))
            shelf.write(layer, self._row_numbers, self._slots, new_keys, new_values)
        else:  # one row: a plain copy is cheaper than an indexed one
            new_keys, new_values = (rounded(x.detach().transpose(0, 1), shelf.dtype) for x in (key, value))
            shelf.write(layer, self._rows, slice(self._single_slot, self._single_slot + 1), new_keys, new_values)
        keys = shelf.keys(layer, self._rows, self._n_used).read(query.dtype)
        values = shelf.values(layer, self._rows, self._n_used).read(query.dtype)
        return attend(query[:, None], [Stretch(keys, values, self._visible)])[:, 0]
