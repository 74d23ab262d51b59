"""What one forward needs to know about who sees whom, worked out once and shared by all layers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from circius.base.config import ModelConfig, Window
from circius.kernels.attention import (
    Stretch,
    attend,
    attend_trained,
    products_in,
    queries_per_block,
    wants_gradients,
)
from circius.kernels.ring_attention import NewTokens, RingAttention, Workspace, attends_natively
from circius.model.window import visible

_ALIGNED = 16
"""Numbers at whose multiples a row of a bias begins; CUDA's kernels would copy another."""


class Step(Protocol):
    """One forward over the flat token axis."""

    positions: Tensor
    """(N,) int64: where each token stands in its own sequence."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The attention of layer `layer`: query (N, H, D), key and value (N, K, D), to (N, H, D)."""
        ...

    def ring_attention(self, layer: int, dtype: torch.dtype) -> tuple[RingAttention, int]:
        """The same for native kernels, with queries of that dtype, and the layer's index among those of its rings."""
        ...


class Cache(Protocol):
    """Where a forward's rows keep what they have seen."""

    def begin(self, lengths: Sequence[int], rows: Sequence[int] | None = None) -> Step:
        """The step in which some rows, all of them by default, take so many new tokens each; `commit` ends it."""
        ...

    def commit(self, step: Any) -> None:
        """Called when every layer has taken the tokens of the step."""
        ...


class Past(NamedTuple):
    """The tokens before a chunk, as one row of a ring holds them: in slot order, which is not the order of time."""

    keys: Tensor
    """(1, K, S, D)"""
    values: Tensor


@dataclass(frozen=True)
class Block:
    """Some queries of a chunk, the given keys that at least one of them sees, and what they see of the ring besides."""

    queries: slice
    keys: slice
    visible: Tensor | None
    sees_past: bool
    past_visible: Tensor | None


class Band:
    """What T consecutive tokens from position `start` see through one window.

    The keys given to `attend` are those of the positions from `origin` to the last of the T, in order. What stood
    before them is in a ring: `past_positions` (S,) are those of its used slots, the last S positions before `origin`.
    The queries are taken in blocks that touch only keys inside the window: the work grows with T * W, not T * T.
    """

    def __init__(
        self,
        window: Window,
        *,
        n_heads: int,
        n_tokens: int,
        start: int,
        origin: int,
        past_positions: Tensor,
    ) -> None:
        assert not len(past_positions) or origin == start
        self._window, self._start, self._origin = window, start, origin
        self._past_positions = past_positions
        self._masks: dict[tuple[int, int], Tensor] = {}
        self._biases: dict[tuple[int, int, torch.dtype], Tensor] = {}
        reach = start + n_tokens - origin
        reach = reach if window is None else min(reach, window)
        self._sees_all = reach == n_tokens and origin == start and not len(past_positions)
        size = queries_per_block(n_heads, reach + len(past_positions), past_positions.device)
        self._blocks = [self._block(begin, min(begin + size, n_tokens)) for begin in range(0, n_tokens, size)]

    def _block(self, begin: int, end: int) -> Block:
        """The block of the queries at positions `start + begin` to `start + end - 1`."""
        window, first_query, last_query = self._window, self._start + begin, self._start + end - 1
        first_key = self._origin if window is None else max(self._origin, first_query - window + 1)
        if visible(last_query, first_key, window):  # then all is seen but what comes after a query itself
            seen = self._mask(first_query, end - begin, first_query) if end - begin > 1 else None
        else:
            seen = self._mask(first_query, end - begin, first_key)
        n_past = len(self._past_positions)
        sees_past = n_past > 0 and bool(visible(first_query, self._start - 1, window))
        past_visible = None
        if sees_past and not visible(last_query, self._start - n_past, window):
            queries = self._positions(first_query, last_query + 1)
            past_visible = visible(queries[:, None], self._past_positions, window)[None]
        keys = slice(first_key - self._origin, last_query + 1 - self._origin)
        return Block(slice(begin, end), keys, seen, sees_past, past_visible)

    def _mask(self, first_query: int, n_queries: int, first_key: int) -> Tensor:
        """The mask (1, T, n) of consecutive queries over the keys from `first_key` to the last of them.

        Blocks of the same shape share one, since only distances count.
        """
        shape = (n_queries, first_query - first_key)
        if shape not in self._masks:
            queries = self._positions(first_query, first_query + n_queries)
            keys = self._positions(first_key, first_query + n_queries)
            self._masks[shape] = visible(queries[:, None], keys, self._window)[None]
        return self._masks[shape]

    def _positions(self, begin: int, end: int) -> Tensor:
        return torch.arange(begin, end, device=self._past_positions.device)

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, past: Past | None = None) -> Tensor:
        """query (B, T, H, D), keys and values (B, K, S, D) of one layer, to (B, T, H, D)."""
        mixed = []
        for block in self._blocks:
            stretches = [Stretch(keys[:, :, block.keys], values[:, :, block.keys], block.visible)]
            if past is not None and block.sees_past:
                stretches.append(Stretch(past.keys, past.values, block.past_visible))
            mixed.append(attend(query[:, block.queries], stretches))
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=1)

    def attend_trained(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """The same for whole sequences (nothing before them) if gradients are wanted: no scores are kept for them."""
        assert not len(self._past_positions)
        if self._sees_all:
            return attend_trained(query, keys, values)
        mixed = [
            attend_trained(
                query[:, block.queries],
                keys[:, :, block.keys],
                values[:, :, block.keys],
                self._bias(block, products_in(query)),
            )
            for block in self._blocks
        ]
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=1)

    def _bias(self, block: Block, dtype: torch.dtype) -> Tensor:
        """0 where a query of the block sees a key, minus infinity elsewhere.

        Blocks of one shape share it, in all layers: what a product with gradients is given is kept for the way back.
        """
        n_queries, n_keys = (part.stop - part.start for part in (block.queries, block.keys))
        shape = (n_queries, n_keys, dtype)
        if shape not in self._biases:
            wide = torch.zeros(n_queries, n_keys + -n_keys % _ALIGNED, dtype=dtype, device=self._past_positions.device)
            bias = wide[:, :n_keys]
            if block.visible is not None:
                n_masked = block.visible.shape[-1]
                bias[:, n_keys - n_masked :].masked_fill_(~block.visible[0], -math.inf)
            self._biases[shape] = bias
        return self._biases[shape]


def heads_first(x: Tensor) -> Tensor:
    """(B, T, K, D) as (B, K, T, D), laid out anew: the products run over one head at a time."""
    return x.transpose(1, 2).contiguous()


class FreshStep:
    """A forward without a cache: each row is a whole sequence from position 0.

    Torch's operations compute neighbouring rows of the same length together.
    """

    def __init__(self, config: ModelConfig, lengths: Sequence[int], device: torch.device) -> None:
        self.positions = torch.cat([torch.arange(length, device=device) for length in lengths])
        self._config, self._device, self._lengths = config, device, list(lengths)
        self._workspace = Workspace()
        self._native: dict[Window, RingAttention] = {}
        self._bands: dict[Window, list[Band]] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if attends_natively(query, key, value):
            attention, index = self.ring_attention(layer, query.dtype)
            return attention(index, query, key, value)
        window = self._config.windows[layer]
        if window not in self._bands:
            self._bands[window] = self._bands_of(window)
        is_trained = wants_gradients(query, key, value)
        mixed, begin = [], 0
        for band, (length, n_rows) in zip(self._bands[window], _runs(self._lengths), strict=True):
            end = begin + length * n_rows
            q, k, v = (x[begin:end].view(n_rows, length, *x.shape[1:]) for x in (query, key, value))
            if is_trained:
                mixed.append(band.attend_trained(q, k.transpose(1, 2), v.transpose(1, 2)).flatten(0, 1))
            else:
                mixed.append(band.attend(q, heads_first(k), heads_first(v)).flatten(0, 1))
            begin = end
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed)

    def ring_attention(self, layer: int, dtype: torch.dtype) -> tuple[RingAttention, int]:
        window = self._config.windows[layer]
        if window not in self._native:
            self._native[window] = RingAttention(
                [NewTokens(None, row, 0, length) for row, length in enumerate(self._lengths)],
                n_heads=self._config.n_heads,
                n_kv_heads=self._config.n_kv_heads,
                window=window,
                cache_dtype=dtype,
                workspace=self._workspace,
            )
        return self._native[window], layer

    def _bands_of(self, window: Window) -> list[Band]:
        """One for each run of rows of the same length; runs of one length share theirs."""
        nothing = torch.empty(0, dtype=torch.int64, device=self._device)
        n_heads = self._config.n_heads
        bands = {
            length: Band(window, n_heads=n_heads, n_tokens=length, start=0, origin=0, past_positions=nothing)
            for length in set(self._lengths)
        }
        return [bands[length] for length, _ in _runs(self._lengths)]


def _runs(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbours of the same length, as (length, how many)."""
    return [(length, len(list(run))) for length, run in groupby(lengths)]
