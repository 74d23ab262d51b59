"""Rows of rings of one capacity, and the two ways in which a forward meets them: a chunk, or one token each.

The token at position p stands in slot p mod S. Every slot carries its position, so slots need no order: what a query
sees follows from positions alone, through `window.visible`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from circius.base.config import Window
from circius.kernels.attention import Stretch, attend
from circius.model.step import Band, Past, heads_first
from circius.model.window import EMPTY, visible


class Shelf:
    """B rings of S slots for each of some layers that share one window.

    keys, values: one tensor (B, K, S, D) a layer. positions: (B, S) int64, shared by the layers.
    """

    def __init__(
        self, n_layers: int, *, n_rows: int, n_kv_heads: int, n_slots: int, head_dim: int,
        dtype: torch.dtype, device: torch.device,
    ) -> None:  # fmt: skip
        shape = (n_rows, n_kv_heads, n_slots, head_dim)
        self.n_slots = n_slots
        # Zeros, not garbage: a masked slot has probability 0, and 0 times a NaN found in fresh memory would be NaN.
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(n_layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(n_layers)]
        self.positions = torch.full((n_rows, n_slots), EMPTY, dtype=torch.int64, device=device)

    @property
    def n_bytes(self) -> int:
        return sum(x.numel() * x.element_size() for x in (*self.keys, *self.values))

    def copy_row(self, row: int, source: "Shelf", source_row: int) -> None:
        """Makes `row` hold what `source_row` holds; with unequal capacities only if that row never wrapped."""
        shared = min(self.n_slots, source.n_slots)
        self.positions[row] = EMPTY
        self.positions[row, :shared] = source.positions[source_row, :shared]
        for ours, theirs in zip(self.keys + self.values, source.keys + source.values, strict=True):
            ours[row, :, :shared] = theirs[source_row, :, :shared]

    def forget_from(self, row: int, length: int) -> None:
        """Empties the slots of positions `length` and later."""
        self.positions[row].masked_fill_(self.positions[row] >= length, EMPTY)


class ChunkPiece:
    """Several new tokens of one row.

    While the row fits into its ring, they are written first and read back with all that is before them, in place.
    Once it wraps, they attend to the old ring and to each other before the last S of them are written: reading before
    writing makes any chunk length exact, longer than the window too.
    """

    def __init__(self, shelf: Shelf, row: int, window: Window, *, tokens: slice, start: int, n_heads: int) -> None:
        self.tokens = tokens
        self._shelf, self._row = shelf, row
        n_tokens = tokens.stop - tokens.start
        end = start + n_tokens
        self._n_used = end if end <= shelf.n_slots else min(start, shelf.n_slots)
        self._writes_first = end <= shelf.n_slots
        # A copy, because the ring's own positions move on while the masks are still being used.
        past_positions = shelf.positions[row, : 0 if self._writes_first else self._n_used].clone()
        self._band = Band(
            window,
            n_heads=n_heads,
            n_tokens=n_tokens,
            start=start,
            origin=0 if self._writes_first else start,
            past_positions=past_positions,
        )
        self._writes = _ring_writes(start, n_tokens, shelf.n_slots)
        for slots, places in self._writes:
            new = torch.arange(start + places.start, start + places.stop, device=shelf.positions.device)
            shelf.positions[row, slots] = new

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        keys, values = self._shelf.keys[layer][self._row], self._shelf.values[layer][self._row]
        held = Past(keys[None, :, : self._n_used], values[None, :, : self._n_used])
        if self._writes_first:
            self._write(keys, key)
            self._write(values, value)
            return self._band.attend(query[None], held.keys, held.values)[0]
        past = held if self._n_used else None
        mixed = self._band.attend(query[None], heads_first(key[None]), heads_first(value[None]), past)[0]
        self._write(keys, key)
        self._write(values, value)
        return mixed

    def _write(self, ring: Tensor, new: Tensor) -> None:
        for slots, places in self._writes:
            ring[:, slots] = new[places].detach().transpose(0, 1)


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
        device = shelf.positions.device
        used = [min(start + 1, shelf.n_slots) for start in starts]
        self._n_used = max(used)
        self._slot = starts[0] % shelf.n_slots if len(starts) == 1 else None
        at = torch.tensor([[start, start % shelf.n_slots] for start in starts], device=device)
        self._slots = at[:, 1]
        self._row_numbers = torch.arange(rows.start, rows.stop, device=device)
        shelf.positions[self._row_numbers, self._slots] = at[:, 0]
        self._visible: Tensor | None = None
        if min(used) < self._n_used:  # else every used slot of every row is inside its window
            self._visible = visible(at[:, :1, None], shelf.positions[rows, None, : self._n_used], window)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        keys, values = self._shelf.keys[layer], self._shelf.values[layer]
        self._write(keys, key)
        self._write(values, value)
        used = slice(0, self._n_used)
        stretch = Stretch(keys[self._rows, :, used], values[self._rows, :, used], self._visible)
        return attend(query[:, None], [stretch])[:, 0]

    def _write(self, ring: Tensor, new: Tensor) -> None:
        if self._slot is None:
            ring[self._row_numbers, :, self._slots] = new.detach()
        else:  # one row: a plain copy is cheaper than an indexed one
            ring[self._rows.start, :, self._slot] = new[0].detach()
