"""The two ways in which a forward meets pages with torch's operations: a chunk, or one token for each of some rows.

They are taken where the native library is not. What is seen is gathered by copying, in order of time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor

from circius.base.config import Window
from circius.kernels.attention import Stretch, attend
from circius.kernels.ring_attention import PAGE
from circius.model.shelf import Rounded, rounded
from circius.model.step import Band
from circius.model.window import visible


@dataclass(frozen=True, kw_only=True)
class PagedRow:
    """Where the sequence of a row stands: `n_cached` tokens, in `pages` from page number `first_page` of its text."""

    pages: Sequence[int]
    first_page: int
    n_cached: int


class PageStore(Protocol):
    """What is asked of a `PagedCache` here."""

    dtype: torch.dtype
    device: torch.device

    def write(self, layer: int, pages: Tensor, slots: Tensor, key: Rounded, value: Rounded) -> None: ...
    def read(self, layer: int, pages: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]: ...


def pieces_of(
    cache: PageStore, rows: Sequence[PagedRow], lengths: Sequence[int], window: Window, *, n_heads: int
) -> "list[ChunkOfPages | TokensOfPages]":
    """Cuts the flat token axis: a chunk for each row with several tokens, one piece for neighbours with one each."""
    pieces: list[ChunkOfPages | TokensOfPages] = []
    begin = 0
    for is_single, run in groupby(zip(rows, lengths, strict=True), key=lambda pair: pair[1] == 1):
        own = list(run)
        if is_single:
            pieces.append(TokensOfPages(cache, [row for row, _ in own], window, first_token=begin))
            begin += len(own)
            continue
        for row, length in own:
            tokens = slice(begin, begin + length)
            pieces.append(ChunkOfPages(cache, row, window, tokens=tokens, n_heads=n_heads))
            begin = tokens.stop
    return pieces


def _first_seen(start: int, window: Window) -> int:
    """The page of the oldest token that the one at `start` sees."""
    return 0 if window is None else max(0, start - window + 1) // PAGE


class ChunkOfPages:
    """Several new tokens of one row: written, then what they see is read."""

    def __init__(self, cache: PageStore, row: PagedRow, window: Window, *, tokens: slice, n_heads: int) -> None:
        self.tokens, self._cache = tokens, cache
        start, end = row.n_cached, row.n_cached + tokens.stop - tokens.start
        table = torch.tensor(row.pages, device=cache.device)
        positions = torch.arange(start, end, device=cache.device)
        self._pages, self._slots = table[positions // PAGE - row.first_page], positions % PAGE
        first = _first_seen(start, window)
        self._seen = table[first - row.first_page : -(-end // PAGE) - row.first_page][None]
        self._n_seen = end - first * PAGE
        self._band = Band(
            window,
            n_heads=n_heads,
            n_tokens=end - start,
            start=start,
            origin=first * PAGE,
            past_positions=torch.empty(0, dtype=torch.int64, device=cache.device),
        )

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        dtype = self._cache.dtype
        self._cache.write(layer, self._pages, self._slots, rounded(key.detach(), dtype), rounded(value.detach(), dtype))
        keys, values = self._cache.read(layer, self._seen, query.dtype)
        return self._band.attend(query[None], keys[:, :, : self._n_seen], values[:, :, : self._n_seen])[0]


class TokensOfPages:
    """One new token for each of some neighbouring rows: all are written, then all rows are read together.

    Rows that see fewer pages than others read their last one again, unseen.
    """

    def __init__(self, cache: PageStore, rows: Sequence[PagedRow], window: Window, *, first_token: int) -> None:
        self.tokens, self._cache = slice(first_token, first_token + len(rows)), cache
        starts = [row.n_cached for row in rows]
        firsts = [_first_seen(start, window) for start in starts]
        seen = [
            list(row.pages[first - row.first_page : start // PAGE + 1 - row.first_page])
            for row, first, start in zip(rows, firsts, starts, strict=True)
        ]
        longest = max(map(len, seen))
        self._seen = torch.tensor([[*own, *[own[-1]] * (longest - len(own))] for own in seen], device=cache.device)
        self._pages = torch.tensor([own[-1] for own in seen], device=cache.device)
        at = torch.tensor(starts, device=cache.device)
        self._slots = at % PAGE
        held = PAGE * torch.tensor(firsts, device=cache.device)[:, None] + torch.arange(
            longest * PAGE, device=cache.device
        )
        self._visible = visible(at[:, None], held, window)[:, None]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        dtype = self._cache.dtype
        self._cache.write(layer, self._pages, self._slots, rounded(key.detach(), dtype), rounded(value.detach(), dtype))
        keys, values = self._cache.read(layer, self._seen, query.dtype)
        # What nobody sees may be what another request has left: even a NaN there must not leak.
        values = values.masked_fill(~self._visible[..., None], 0)
        return attend(query[:, None], [Stretch(keys, values, self._visible)])[:, 0]
