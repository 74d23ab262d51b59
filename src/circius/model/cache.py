"""The rolling buffer cache (section 2 of the paper): min(W, need) slots a sequence and layer, however long the text."""

from collections.abc import Sequence
from itertools import groupby, pairwise

import torch
from torch import Tensor

from circius.base.config import ModelConfig, Window
from circius.base.errors import CacheFullError, InvalidInputError
from circius.model.ring import ChunkPiece, DecodePiece, Shelf

_ROUNDING = 64
"""Needs are rounded up to this many slots, so that rows of nearly the same need lie in one tensor and decode as one."""


class RollingCache:
    """Keys and values of some sequences, the rows, each with its own length and its own need.

    needs: the tokens that each row will hold in all. A row takes min(W, need) slots in a layer of window W, so a need
    of W or more means a text without end if every layer has a window; otherwise the need is a limit.
    """

    def __init__(
        self, config: ModelConfig, needs: Sequence[int], *, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        if not needs or min(needs) < 1:
            raise InvalidInputError(f"a cache needs at least one row of at least one token, got needs {list(needs)}")
        self._config = config
        self._dtype, self._device = dtype, torch.device(device)
        self._needs = list(needs)
        self.lengths = [0] * len(needs)
        """The tokens that each row has seen so far, those that have left the window included."""
        self._torn: set[int] = set()
        self._groups = {window: self._shelve(window, self._needs) for window in dict.fromkeys(config.windows)}

    @property
    def n_rows(self) -> int:
        return len(self.lengths)

    @property
    def n_bytes(self) -> int:
        """The bytes allocated for keys and values."""
        return sum(shelf.n_bytes for group in self._groups.values() for shelf in group.shelves)

    def touch(self) -> None:
        """Takes the memory of an empty cache now: systems grant pages on first use, and may then have none left."""
        assert not any(self.lengths), "touching would erase what the cache holds"
        for group in self._groups.values():
            for shelf in group.shelves:
                for ring in (*shelf.keys, *shelf.values):
                    ring.zero_()

    def _shelve(self, window: Window, needs: Sequence[int]) -> "_Group":
        config = self._config
        layers = [layer for layer, own in enumerate(config.windows) if own == window]
        slots = [_n_slots(window, need) for need in needs]
        shelves: list[Shelf] = []
        places: list[tuple[int, int]] = []
        for n_slots, run in groupby(slots):
            n_rows = len(list(run))
            places += [(len(shelves), row) for row in range(n_rows)]
            shelves.append(
                Shelf(
                    len(layers), n_rows=n_rows, n_kv_heads=config.n_kv_heads, n_slots=n_slots,
                    head_dim=config.head_dim, dtype=self._dtype, device=self._device,
                )
            )  # fmt: skip
        return _Group(window, {layer: index for index, layer in enumerate(layers)}, shelves, places)

    def begin(self, lengths: Sequence[int], rows: Sequence[int] | None = None) -> "CachedStep":
        """The step in which the given rows take `lengths` new tokens each; `commit` ends it. Called by the model.

        Raises:
            InvalidInputError: rows that are not ascending row numbers of this cache, one for each length.
            CacheFullError: a row has no room, or an earlier step on it was interrupted half-way.
        """
        rows = range(self.n_rows) if rows is None else list(rows)
        if len(rows) != len(lengths) or any(a >= b for a, b in pairwise(rows)):
            raise InvalidInputError(f"rows must be ascending, one for each of {len(lengths)} lengths: got {list(rows)}")
        if rows[0] < 0 or rows[-1] >= self.n_rows:
            raise InvalidInputError(f"rows must be 0 to {self.n_rows - 1}, got {list(rows)}")
        for row, length in zip(rows, lengths, strict=True):
            self._check_room(row, length)
        self._torn.update(rows)
        return CachedStep(self, self._config.n_heads, list(rows), list(lengths))

    def commit(self, step: "CachedStep") -> None:
        """Counts the step's tokens as held, after every layer has written them."""
        for row, length in zip(step.rows, step.lengths, strict=True):
            self.lengths[row] += length
        self._torn.difference_update(step.rows)

    def _check_room(self, row: int, n_new: int) -> None:
        if row in self._torn:
            raise CacheFullError(f"a forward on cache row {row} was interrupted half-way: truncate the row to 0 first")
        total = self.lengths[row] + n_new
        for group in self._groups.values():
            n_slots = group.n_slots(row)
            if total > n_slots and n_slots != group.window:
                raise CacheFullError(
                    f"cache row {row} holds {self.lengths[row]} tokens and has room for {n_slots} in all, "
                    f"{n_new} more do not fit: reserve room for {total} first"
                )

    def can_truncate(self, row: int, length: int) -> bool:
        """Whether all that the token at position `length` would see is still there."""
        if not 0 <= length <= self.lengths[row]:
            return False
        if length == 0:
            return True
        if row in self._torn:
            return False
        overwritten = (self.lengths[row] - group.n_slots(row) for group in self._groups.values())
        oldest = (0 if w is None else max(0, length - w + 1) for w in self._groups)
        return all(lost <= needed for lost, needed in zip(overwritten, oldest, strict=True))

    def truncate(self, row: int, length: int) -> None:
        """Forgets the tokens of `row` from position `length` on.

        Raises:
            CacheFullError: the ring has already overwritten tokens that the one at `length` would see.
        """
        if not self.can_truncate(row, length):
            raise CacheFullError(
                f"cache row {row} holds {self.lengths[row]} tokens and cannot go back to {length}: "
                "what that token would see is overwritten; truncate to 0 and fill it again"
            )
        for group in self._groups.values():
            shelf, index = group.at(row)
            shelf.forget_from(index, length)
        self.lengths[row] = length
        self._torn.discard(row)

    def reserve(self, row: int, need: int) -> None:
        """Makes room for `need` tokens in `row`, keeping what it holds; does nothing where there is room."""
        needs = [max(need, own) if index == row else own for index, own in enumerate(self._needs)]
        for window, old in self._groups.items():
            if _n_slots(window, needs[row]) == old.n_slots(row):
                continue
            new = self._shelve(window, needs)
            for index in range(self.n_rows):
                shelf, place = new.at(index)
                shelf.copy_row(place, *old.at(index))
            self._groups[window] = new
        self._needs = needs

    def copy_row(self, source: int, target: int) -> None:
        """Makes row `target` hold what row `source` holds.

        Raises:
            CacheFullError: the target's rings are smaller than what the source holds.
        """
        for group in self._groups.values():
            there, here = group.n_slots(source), group.n_slots(target)
            if here != there and self.lengths[source] > min(here, there):
                raise CacheFullError(
                    f"cache row {source} holds {self.lengths[source]} tokens in {there} slots, "
                    f"row {target} has {here}: reserve the same room for both first"
                )
        for group in self._groups.values():
            shelf, index = group.at(target)
            shelf.copy_row(index, *group.at(source))
        self.lengths[target] = self.lengths[source]
        self._torn.discard(target)
        if source in self._torn:
            self._torn.add(target)


class _Group:
    """The shelves of the layers that share one window, and where each row stands on them."""

    def __init__(
        self, window: Window, layers: dict[int, int], shelves: list[Shelf], places: list[tuple[int, int]]
    ) -> None:
        self.window, self.layers, self.shelves, self.places = window, layers, shelves, places

    def at(self, row: int) -> tuple[Shelf, int]:
        shelf, index = self.places[row]
        return self.shelves[shelf], index

    def n_slots(self, row: int) -> int:
        return self.at(row)[0].n_slots


class CachedStep:
    """A forward over some rows of a cache: chunks and single tokens mixed, each row in its own way."""

    def __init__(self, cache: RollingCache, n_heads: int, rows: list[int], lengths: list[int]) -> None:
        self.rows, self.lengths = rows, lengths
        starts = [cache.lengths[row] for row in rows]
        spans = [torch.arange(s, s + n) for s, n in zip(starts, lengths, strict=True)]
        self.positions = torch.cat(spans).to(cache._device)
        self._pieces: dict[int, tuple[int, list[ChunkPiece | DecodePiece]]] = {}
        for group in cache._groups.values():
            pieces = list(_pieces(group, n_heads, rows, lengths, starts))
            self._pieces |= {layer: (index, pieces) for layer, index in group.layers.items()}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        index, pieces = self._pieces[layer]
        mixed = [p.attend(index, query[p.tokens], key[p.tokens], value[p.tokens]) for p in pieces]
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed)


def _pieces(
    group: _Group, n_heads: int, rows: list[int], lengths: list[int], starts: list[int]
) -> list[ChunkPiece | DecodePiece]:
    """Cuts the flat token axis: a chunk for each row with several tokens, one piece for neighbours with one each."""
    pieces: list[ChunkPiece | DecodePiece] = []
    token = index = 0
    while index < len(rows):
        shelf_number, place = group.places[rows[index]]
        shelf = group.shelves[shelf_number]
        if lengths[index] > 1:
            tokens = slice(token, token + lengths[index])
            pieces.append(ChunkPiece(shelf, place, group.window, tokens=tokens, start=starts[index], n_heads=n_heads))
            token, index = tokens.stop, index + 1
            continue
        n = 1
        while (
            index + n < len(rows)
            and lengths[index + n] == 1
            and group.places[rows[index + n]] == (shelf_number, place + n)
        ):
            n += 1
        tokens, span = slice(token, token + n), slice(place, place + n)
        pieces.append(DecodePiece(shelf, span, group.window, tokens=tokens, starts=starts[index : index + n]))
        token, index = token + n, index + n
    return pieces


def _n_slots(window: Window, need: int) -> int:
    """The slots that a row of `need` tokens takes in a layer of this window.

    >>> _n_slots(4096, 100), _n_slots(4096, 8192), _n_slots(None, 8192)
    (128, 4096, 8192)
    """
    rounded = -(-need // _ROUNDING) * _ROUNDING
    return rounded if window is None else min(window, rounded)
