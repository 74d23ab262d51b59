"""The cache of many sequences in pages of 64 positions, which they take from a pool and may share.

Who holds which page is decided elsewhere (`engine/pool.py`); here are the numbers. A sequence names its pages from one
of its positions on, at least from the oldest that its next token sees: what has left the window needs none.
"""

import math
from array import array
from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from circius.base.config import ModelConfig, Window
from circius.base.errors import InvalidInputError
from circius.kernels.ring_attention import PAGE, NewPagedTokens, Pages, RingAttention, Workspace, attends_natively
from circius.model.paged_pieces import ChunkOfPages, PagedRow, TokensOfPages, pieces_of
from circius.model.shelf import CACHE_DTYPES, Rounded

_LINE = 64
"""Bytes of a cache line, at which the numbers begin."""


class PagedCache:
    """Keys and values of `n_pages` pages in every layer.

    dtype: float32, float16 (where numbers past 65,504 become 65,504), bfloat16, or int8 with a scale for each token and
    head.
    """

    def __init__(self, config: ModelConfig, n_pages: int, *, dtype: torch.dtype, device: torch.device | str) -> None:
        if dtype not in CACHE_DTYPES:
            raise InvalidInputError(f"a cache holds float32, float16, bfloat16 or int8, got {dtype}")
        if n_pages < 1:
            raise InvalidInputError(f"a cache needs at least one page, got {n_pages}")
        self.config, self.dtype, self.n_pages, self.device = config, dtype, n_pages, torch.device(device)
        self.workspace = Workspace()
        shape = (config.n_layers, n_pages, config.n_kv_heads, PAGE)
        # Zeros, not garbage: a masked slot has probability 0, and 0 times a NaN found in fresh memory would be NaN.
        keys, values = (_zeros((*shape, config.head_dim), dtype, self.device) for _ in range(2))
        scales = [_zeros(shape, torch.float32, self.device) if dtype == torch.int8 else None for _ in range(2)]
        self.pages = Pages(keys, values, *scales)

    @property
    def n_bytes(self) -> int:
        return sum(x.numel() * x.element_size() for x in self.pages if x is not None)

    def rows(self, rows: Sequence[PagedRow]) -> "PagedRows":
        """Those sequences as the cache of one forward."""
        return PagedRows(self, rows)

    def copy_page(self, source: int, target: int) -> None:
        """Makes a page hold what another holds."""
        for held in self.pages:
            if held is not None:
                held[:, target] = held[:, source]

    def write(self, layer: int, pages: Tensor, slots: Tensor, key: Rounded, value: Rounded) -> None:
        """Puts new keys and values (n, K, D) into slots (n,) of pages (n,)."""
        for held, scales, new in (
            (self.pages.keys, self.pages.key_scales, key),
            (self.pages.values, self.pages.value_scales, value),
        ):
            held[layer][pages, :, slots] = new.numbers
            if scales is not None and new.scales is not None:
                scales[layer][pages, :, slots] = new.scales

    def read(self, layer: int, pages: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Copies of the keys and the values (B, K, n * 64, D) in some pages (B, n)."""
        keys = _gathered(self.pages.keys, self.pages.key_scales, layer, pages)
        values = _gathered(self.pages.values, self.pages.value_scales, layer, pages)
        return keys.read(dtype), values.read(dtype)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros that take memory only when they are written: torch's own would be written at once."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    n_bytes = math.prod(shape) * dtype.itemsize
    memory = torch.from_numpy(np.zeros(n_bytes + _LINE, np.uint8))
    begin = -memory.data_ptr() % _LINE
    return memory[begin : begin + n_bytes].view(dtype).view(shape)


def _gathered(held: Tensor, scales: Tensor | None, layer: int, pages: Tensor) -> Rounded:
    numbers = held[layer][pages].transpose(1, 2).flatten(2, 3)
    return Rounded(numbers, None if scales is None else scales[layer][pages].transpose(1, 2).flatten(2, 3))


class PagedRows:
    """Some sequences of a paged cache, for one forward."""

    def __init__(self, cache: PagedCache, rows: Sequence[PagedRow]) -> None:
        self._cache, self._rows = cache, rows

    def begin(self, lengths: Sequence[int], rows: Sequence[int] | None = None) -> "PagedStep":
        """The step in which each of them takes so many new tokens.

        Raises:
            InvalidInputError: a row lacks a page that is read or written.
        """
        assert rows is None, "the rows of a paged cache are chosen when they are named"
        if len(lengths) != len(self._rows):
            raise InvalidInputError(f"{len(lengths)} lengths for {len(self._rows)} rows of a paged cache")
        window = self._cache.config.widest_window
        for row, length in zip(self._rows, lengths, strict=True):
            oldest = 0 if window is None else max(0, row.n_cached - window + 1)
            end = (row.first_page + len(row.pages)) * PAGE
            if row.first_page * PAGE > oldest or row.n_cached + length > end:
                raise InvalidInputError(
                    f"a row with pages for the positions {row.first_page * PAGE} to {end - 1} cannot take {length} "
                    f"tokens at {row.n_cached}, which see back to {oldest}"
                )
            if not all(0 <= page < self._cache.n_pages for page in row.pages):
                raise InvalidInputError(f"pages must be 0 to {self._cache.n_pages - 1}, got {list(row.pages)}")
        return PagedStep(self._cache, self._rows, list(lengths))

    def commit(self, step: object) -> None:
        """Nothing: how many tokens a sequence has is its owner's to count."""


class PagedStep:
    """A forward over some rows: chunks and single tokens mixed. All new tokens are written before any are read."""

    def __init__(self, cache: PagedCache, rows: Sequence[PagedRow], lengths: list[int]) -> None:
        self._cache, self._rows, self._lengths = cache, rows, lengths
        spans = [torch.arange(row.n_cached, row.n_cached + n) for row, n in zip(rows, lengths, strict=True)]
        self.positions = torch.cat(spans).to(cache.device)
        self._table = array("i", chain.from_iterable(row.pages for row in rows))
        self._native: dict[Window, RingAttention] = {}
        self._pieces: dict[Window, list[ChunkOfPages | TokensOfPages]] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if attends_natively(query, key, value):
            attention, index = self.ring_attention(layer, query.dtype)
            return attention(index, query, key, value)
        window = self._cache.config.windows[layer]
        if window not in self._pieces:
            self._pieces[window] = pieces_of(self._cache, self._rows, self._lengths, window, n_heads=query.shape[1])
        pieces = self._pieces[window]
        mixed = [p.attend(layer, query[p.tokens], key[p.tokens], value[p.tokens]) for p in pieces]
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed)

    def ring_attention(self, layer: int, dtype: torch.dtype) -> tuple[RingAttention, int]:
        cache = self._cache
        window = cache.config.windows[layer]
        if window not in self._native:
            tokens, begin = [], 0
            for row, n_tokens in zip(self._rows, self._lengths, strict=True):
                tokens.append(
                    NewPagedTokens(
                        cache.pages, self._table, begin, len(row.pages), row.first_page, row.n_cached, n_tokens
                    )
                )
                begin += len(row.pages)
            self._native[window] = RingAttention(
                tokens,
                n_heads=cache.config.n_heads,
                n_kv_heads=cache.config.n_kv_heads,
                window=window,
                cache_dtype=cache.dtype,
                workspace=cache.workspace,
            )
        return self._native[window], layer
