"""The rolling buffer cache (section 2 of the paper): min(W, need) slots a sequence and layer, however long the text."""

from collections.abc import Sequence
from itertools import groupby, pairwise

import torch
from torch import Tensor

from circius.base.config import ModelConfig, Window
from circius.base.errors import CacheFullError, InvalidInputError
from circius.kernels.ring_attention import NewTokens, RingAttention, Workspace, attends_natively
from circius.model.ring import ChunkPiece, DecodePiece
from circius.model.shelf import Shelf

_ROUNDING = 64
"""Needs are rounded up to this many slots, so that rows of nearly the same need lie in one tensor and decode as one."""


class RollingCache:
    """Keys and values of some sequences, the rows, each with its own length and its own need.

    needs: the tokens that each row will hold in all. A row takes min(W, need) slots in a layer of window W, so a need
    of W or more means a text without end if every layer has a window; otherwise the need is a limit.
    dtype: float32, float16 (where numbers past 65,504 become 65,504), bfloat16, or int8, with a float32 scale for each
    token and head. It need not be the dtype of the model.
    extra_slots: rings that may wrap get W + extra_slots slots, so that their last `extra_slots` tokens can always be
    truncated.
    """

    def __init__(
        self,
        config: ModelConfig,
        needs: Sequence[int],
        *,
        dtype: torch.dtype,
        device: torch.device | str,
        extra_slots: int = 0,
    ) -> None:
        if not needs or min(needs) < 1:
            raise InvalidInputError(f"a cache needs at least one row of at least one token, got needs {list(needs)}")
        if extra_slots < 0:
            raise InvalidInputError(f"extra_slots must be 0 or more, got {extra_slots}")
        self._config = config
        self._dtype, self._device = dtype, torch.device(device)
        self._extra_slots = extra_slots
        self.workspace = Workspace()
        self._needs = list(needs)
        self.lengths = [0] * len(needs)
        """The tokens that each row has seen so far, those that have left the window included."""
        self._torn: set[int] = set()
        self._furthest = [0] * len(needs)
        """The most tokens that each row has held since it was empty: what they have overwritten does not come back when
        some of them are truncated."""
        self._groups = {window: self._shelve(window, self._needs) for window in dict.fromkeys(config.windows)}

    @property
    def n_rows(self) -> int:
        return len(self.lengths)

    @property
    def n_bytes(self) -> int:
        """The bytes allocated for keys and values, and for their scales in a cache of codes."""
        return sum(shelf.n_bytes for group in self._groups.values() for shelf in group.shelves)

    def touch(self) -> None:
        """Takes the memory of an empty cache now: systems grant pages on first use, and may then have none left."""
        assert not any(self.lengths), "touching would erase what the cache holds"
        for group in self._groups.values():
            for shelf in group.shelves:
                shelf.touch()

    def pretend(self, length: int) -> None:
        """Makes every row of an empty cache hold noise, as if it had seen `length` tokens. For benchmarks: what comes
        after a long text takes the same time, and nobody waits for the text to be read.

        Raises:
            CacheFullError: there is no room for so many.
        """
        assert not any(self.lengths), "pretending would erase what the cache holds"
        for row in range(self.n_rows):
            self._check_room(row, length)
        for group in self._groups.values():
            for shelf in group.shelves:
                shelf.fill_with_noise()
        self.lengths, self._furthest = [length] * self.n_rows, [length] * self.n_rows

    def _shelve(self, window: Window, needs: Sequence[int]) -> "_Group":
        config = self._config
        layers = [layer for layer, own in enumerate(config.windows) if own == window]
        slots = [_n_slots(window, need, self._extra_slots) for need in needs]
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
        return CachedStep(self, list(rows), list(lengths))

    def commit(self, step: "CachedStep") -> None:
        """Counts the step's tokens as held, after every layer has written them."""
        for row, length in zip(step.rows, step.lengths, strict=True):
            self.lengths[row] += length
            self._furthest[row] = max(self._furthest[row], self.lengths[row])
        self._torn.difference_update(step.rows)

    def _check_room(self, row: int, n_new: int) -> None:
        if row in self._torn:
            raise CacheFullError(f"a forward on cache row {row} was interrupted half-way: truncate the row to 0 first")
        total = self.lengths[row] + n_new
        for group in self._groups.values():
            n_slots = group.n_slots(row)
            if total > n_slots and (group.window is None or n_slots < group.window):
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
        overwritten = (self._furthest[row] - group.n_slots(row) for group in self._groups.values())
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
        self.lengths[row] = length  # which position a slot holds follows from it
        if length == 0:
            self._furthest[row] = 0
        self._torn.discard(row)

    def reserve(self, row: int, need: int) -> None:
        """Makes room for `need` tokens in `row`, keeping what it holds; does nothing where there is room."""
        needs = [max(need, own) if index == row else own for index, own in enumerate(self._needs)]
        for window, old in self._groups.items():
            if _n_slots(window, needs[row], self._extra_slots) == old.n_slots(row):
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
        self.lengths[target], self._furthest[target] = self.lengths[source], self._furthest[source]
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
    """A forward over some rows of a cache: chunks and single tokens mixed, each row in its own way.

    How the layers of one window attend is worked out when the first of them asks.
    """

    def __init__(self, cache: RollingCache, rows: list[int], lengths: list[int]) -> None:
        self.rows, self.lengths = rows, lengths
        self._cache, self._starts = cache, [cache.lengths[row] for row in rows]
        spans = [torch.arange(start, start + n) for start, n in zip(self._starts, lengths, strict=True)]
        self.positions = torch.cat(spans).to(cache._device)
        self._native: dict[Window, RingAttention] = {}
        self._pieces: dict[Window, list[ChunkPiece | DecodePiece]] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if attends_natively(query, key, value):
            attention, index = self.ring_attention(layer, query.dtype)
            return attention(index, query, key, value)
        window = self._cache._config.windows[layer]
        group = self._cache._groups[window]
        index = group.layers[layer]
        if window not in self._pieces:
            self._pieces[window] = _pieces(group, query.shape[1], self.rows, self.lengths, self._starts)
        pieces = self._pieces[window]
        mixed = [p.attend(index, query[p.tokens], key[p.tokens], value[p.tokens]) for p in pieces]
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed)

    def ring_attention(self, layer: int, dtype: torch.dtype) -> tuple[RingAttention, int]:
        """Of any dtype: what is read is the cache's."""
        cache = self._cache
        window = cache._config.windows[layer]
        group = cache._groups[window]
        if window not in self._native:
            tokens = []
            for row, start, n_tokens in zip(self.rows, self._starts, self.lengths, strict=True):
                shelf, place = group.at(row)
                tokens.append(NewTokens(shelf.rings, place, start, n_tokens))
            self._native[window] = RingAttention(
                tokens,
                n_heads=cache._config.n_heads,
                n_kv_heads=cache._config.n_kv_heads,
                window=window,
                cache_dtype=cache._dtype,
                workspace=cache.workspace,
            )
        return self._native[window], group.layers[layer]


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


def _n_slots(window: Window, need: int, extra_slots: int) -> int:
    """The slots that a row of `need` tokens takes in a layer of this window.

    >>> _n_slots(4096, 100, 0), _n_slots(4096, 8192, 0), _n_slots(None, 8192, 0), _n_slots(4096, 8192, 8)
    (128, 4096, 8192, 4104)
    """
    rounded = -(-need // _ROUNDING) * _ROUNDING
    return rounded if window is None or rounded < window else window + extra_slots
