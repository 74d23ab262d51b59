"""What one forward needs to know about who sees whom, worked out once and shared by all layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from circius.base.config import ModelConfig, Window
from circius.kernels.attention import Stretch, attend, queries_per_block
from circius.model.window import visible


class Step(Protocol):
    """One forward over the flat token axis."""

    positions: Tensor
    """(N,) int64: where each token stands in its own sequence."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The attention of layer `layer`: query (N, H, D), key and value (N, K, D), to (N, H, D)."""
        ...


class Past(NamedTuple):
    """The tokens before a chunk, as one row of a ring holds them: in slot order, which is not the order of time."""

    keys: Tensor
    """(1, K, S, D)"""
    values: Tensor


@dataclass(frozen=True)
class Block:
    """Some queries of a chunk, the keys of the chunk that at least one of them sees, and what they see of the past."""

    queries: slice
    keys: slice
    visible: Tensor | None
    sees_past: bool
    past_visible: Tensor | None


class Band:
    """How T consecutive tokens from position `start` see each other, and a ring before them, through one window.

    The queries are taken in blocks that touch only keys inside the window: the work grows with T * W, not T * T.
    `past_positions` (S,) are those of the ring's used slots, which hold the last S positions before `start`.
    """

    def __init__(
        self,
        window: Window,
        *,
        n_heads: int,
        n_tokens: int,
        device: torch.device,
        start: int,
        past_positions: Tensor,
    ) -> None:
        self.window = window
        self.start = start
        self.past_positions = past_positions
        self._places = torch.arange(n_tokens, device=device)
        self._masks: dict[tuple[int, int, int], Tensor] = {}
        reach = n_tokens if window is None else min(n_tokens, window)
        size = queries_per_block(n_heads, reach + len(past_positions))
        self.blocks = [self._block(begin, min(begin + size, n_tokens)) for begin in range(0, n_tokens, size)]

    def _block(self, begin: int, end: int) -> Block:
        first = 0 if self.window is None else max(0, begin - self.window + 1)
        n_past = len(self.past_positions)
        sees_past = n_past > 0 and bool(visible(self.start + begin, self.start - 1, self.window))
        sees_all_past = bool(visible(self.start + end - 1, self.start - n_past, self.window))
        past_visible = None
        if sees_past and not sees_all_past:
            queries = self.start + self._places[begin:end, None]
            past_visible = visible(queries, self.past_positions, self.window)[None]
        return Block(slice(begin, end), slice(first, end), self._mask(begin, end, first), sees_past, past_visible)

    def _mask(self, begin: int, end: int, first: int) -> Tensor | None:
        """The mask (1, T, S) inside the chunk; blocks of the same shape share one, since only distances count."""
        if end - first == 1:
            return None
        shape = (end - begin, end - first, begin - first)
        if shape not in self._masks:
            self._masks[shape] = visible(self._places[begin:end, None], self._places[first:end], self.window)[None]
        return self._masks[shape]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, past: Past | None) -> Tensor:
        """query (B, T, H, D), key and value (B, T, K, D) of one layer, to (B, T, H, D)."""
        keys, values = key.transpose(1, 2).contiguous(), value.transpose(1, 2).contiguous()
        mixed = []
        for block in self.blocks:
            stretches = [Stretch(keys[:, :, block.keys], values[:, :, block.keys], block.visible)]
            if past is not None and block.sees_past:
                stretches.append(Stretch(past.keys, past.values, block.past_visible))
            mixed.append(attend(query[:, block.queries], stretches))
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=1)


class FreshStep:
    """A forward without a cache: each row is a whole sequence from position 0.

    Neighbouring rows of the same length are computed together.
    """

    def __init__(self, config: ModelConfig, lengths: Sequence[int], device: torch.device) -> None:
        self.positions = torch.cat([torch.arange(length, device=device) for length in lengths])
        self._windows = config.windows
        self._runs = [(length, len(list(run))) for length, run in groupby(lengths)]
        nothing = torch.empty(0, dtype=torch.int64, device=device)
        self._bands = {
            (length, window): Band(
                window,
                n_heads=config.n_heads,
                n_tokens=length,
                device=device,
                start=0,
                past_positions=nothing,
            )
            for length in set(lengths)
            for window in set(config.windows)
        }

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        mixed, begin = [], 0
        for length, n_rows in self._runs:
            end = begin + length * n_rows
            band = self._bands[length, self._windows[layer]]
            q, k, v = (x[begin:end].view(n_rows, length, *x.shape[1:]) for x in (query, key, value))
            mixed.append(band.attend(q, k, v, past=None).flatten(0, 1))
            begin = end
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed)
