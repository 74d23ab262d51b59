"""Attention the slow and obvious way, and the native kernel over rings filled chunk by chunk."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from circius.base.config import Window
from circius.kernels.ring_attention import NewTokens, RingAttention, Rings, Workspace
from circius.model.window import visible


class Tokens(NamedTuple):
    """The queries (T, H, D), keys and values (T, K, D) of one sequence."""

    query: Tensor
    key: Tensor
    value: Tensor

    def part(self, begin: int, end: int) -> "Tokens":
        return Tokens(*(x[begin:end] for x in self))


def random_tokens(
    n: int, n_heads: int, n_kv_heads: int, head_dim: int, *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Tokens:
    generator = torch.Generator().manual_seed(seed)
    return Tokens(
        *(torch.randn(n, heads, head_dim, generator=generator).to(dtype) for heads in (n_heads, n_kv_heads, n_kv_heads))
    )


def empty_rings(rows: int, n_kv_heads: int, n_slots: int, head_dim: int, dtype: torch.dtype, layers: int = 1) -> Rings:
    shape = (layers, rows, n_kv_heads, n_slots)
    scales = [torch.zeros(shape) if dtype == torch.int8 else None for _ in range(2)]
    return Rings(*(torch.zeros(*shape, head_dim, dtype=dtype) for _ in range(2)), *scales)


def attention(
    rows: Sequence[NewTokens],
    like: Tokens,
    window: Window,
    cache_dtype: torch.dtype,
    workspace: Workspace | None = None,
) -> RingAttention:
    return RingAttention(
        rows, n_heads=like.query.shape[1], n_kv_heads=like.key.shape[1], window=window, cache_dtype=cache_dtype,
        workspace=workspace or Workspace(),
    )  # fmt: skip


def in_chunks(
    tokens: Tokens, chunks: Sequence[int], *, window: Window, n_slots: int, cache_dtype: torch.dtype
) -> Tensor:
    """The kernel's answer for a sequence that comes in chunks."""
    rings = empty_rings(1, tokens.key.shape[1], n_slots, tokens.key.shape[2], cache_dtype)
    workspace, out, start = Workspace(), [], 0
    for n in chunks:
        step = attention([NewTokens(rings, 0, start, n)], tokens, window, cache_dtype, workspace)
        out.append(step(0, *tokens.part(start, start + n)))
        start += n
    return torch.cat(out)


def exact(tokens: Tokens, window: Window) -> Tensor:
    """In float64, with one mask and expanded keys."""
    group = tokens.query.shape[1] // tokens.key.shape[1]
    key, value = (x.double().repeat_interleave(group, dim=1) for x in (tokens.key, tokens.value))
    scores = torch.einsum("qhd,khd->hqk", tokens.query.double(), key) / math.sqrt(tokens.query.shape[2])
    places = torch.arange(len(tokens.query))
    seen = visible(places[:, None], places, window)
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -math.inf).softmax(-1), value)
