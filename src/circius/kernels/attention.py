"""Grouped-query attention of some queries over one or more stretches of keys, without expanding K and V.

The G = H / K query heads that share a key-value head are folded into the query axis, so that the products are plain
batched matrix products of (G*T, D) with (D, S), and K and V are never materialised H / K times. For one query, and on
CPUs with units for bf16, this is several times faster than torch's fused kernel; where that one wins, it is used.
It is also used wherever gradients are wanted: it keeps no scores for the way back, of which there are T * S a head.

Reading the keys in several stretches (the ring, then the chunk) is what lets pre-fill attend to a rolling buffer
without copying it: only the scores are joined.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from circius.kernels.precision import multiplies_fast

_WORTH_FUSING = 8


class Stretch(NamedTuple):
    """Keys and values that stand together in memory, and which of them each query may see.

    keys, values: (B, K, S, D). visible: bool, broadcastable to (B, T, n) with n <= S, for the last n keys; every query
    sees the keys before them. None: every query sees every key.
    """

    keys: Tensor
    values: Tensor
    visible: Tensor | None = None


def attend(query: Tensor, stretches: Sequence[Stretch]) -> Tensor:
    """Softmax attention of `query` (B, T, H, D) over all the stretches together; the result is (B, T, H, D).

    Query head h reads key-value head h // (H / K). Scores become float32 before they are scaled and normalised;
    the probabilities go back to the dtype of the products, which is that of the query, or float32 where the processor
    is slow in it. Every query must see at least one key.
    """
    if len(stretches) == 1 and _fused_is_faster(query):
        return _attend_fused(query, stretches[0])
    products = products_in(query)
    stretches = [Stretch(keys.to(products), values.to(products), seen) for keys, values, seen in stretches]
    rows, n_queries, n_heads, head_dim = query.shape
    n_kv_heads = stretches[0].keys.shape[1]
    group = n_heads // n_kv_heads
    folded = query.view(rows, n_queries, n_kv_heads, group, head_dim).permute(0, 2, 3, 1, 4)
    folded = folded.reshape(rows, n_kv_heads, group * n_queries, head_dim).to(products)

    scores = [_scores(folded, stretch, n_queries) for stretch in stretches]
    weights = torch.softmax(torch.cat(scores, dim=-1) if len(scores) > 1 else scores[0], dim=-1)
    weights = weights.to(products)

    sizes = [stretch.keys.shape[2] for stretch in stretches]
    mixed = [
        part @ stretch.values for part, stretch in zip(torch.split(weights, sizes, dim=-1), stretches, strict=True)
    ]
    out = mixed[0] if len(mixed) == 1 else torch.stack(mixed).sum(dim=0)
    out = out.view(rows, n_kv_heads, group, n_queries, head_dim).permute(0, 3, 1, 2, 4)
    return out.reshape(rows, n_queries, n_heads, head_dim).to(query.dtype)


def attend_trained(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
    """Softmax attention of `query` (B, T, H, D) over keys and values (B, K, S, D); no scores are kept for gradients.

    bias: (T, S) in `products_in` of the query, added to the scaled scores: minus infinity where a key is not seen.
        Without one, S is T, and each query sees the keys up to its own.
    """
    products = products_in(query)
    heads, keys, values = (x.to(products) for x in (query.transpose(1, 2), keys, values))
    grouped = query.shape[2] != keys.shape[1]
    # Of CUDA's kernels only the causal one for narrow numbers takes groups; for the others torch would fall back to
    # plain products, which keep the scores.
    if grouped and query.device.type != "cpu" and (bias is not None or products == torch.float32):
        keys, values = (x.repeat_interleave(query.shape[2] // x.shape[1], dim=1) for x in (keys, values))
        grouped = False
    mixed = F.scaled_dot_product_attention(
        heads, keys, values, attn_mask=bias, is_causal=bias is None, enable_gqa=grouped
    )
    return mixed.transpose(1, 2).to(query.dtype)


def products_in(query: Tensor) -> torch.dtype:
    """The dtype of attention's products: the query's, or float32 where the processor is slow in it."""
    return query.dtype if multiplies_fast(query.dtype, query.device) else torch.float32


def wants_gradients(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


def _fused_is_faster(query: Tensor) -> bool:
    """Whether torch's fused kernel takes half the time of plain products here (docs/log.md): on a CPU, for several
    queries, in a dtype that oneDNN has no units for. With them, and for one query, plain products win."""
    has_units = query.dtype != torch.float32 and multiplies_fast(query.dtype, query.device)
    return query.device.type == "cpu" and query.shape[1] >= _WORTH_FUSING and not (has_units or torch.is_grad_enabled())


def _attend_fused(query: Tensor, stretch: Stretch) -> Tensor:
    mask = stretch.visible
    if mask is not None:
        mask = F.pad(mask, (stretch.keys.shape[2] - mask.shape[-1], 0), value=True)[:, None]
    heads = query.transpose(1, 2)
    mixed = F.scaled_dot_product_attention(heads, stretch.keys, stretch.values, attn_mask=mask, enable_gqa=True)
    return mixed.transpose(1, 2)


def _scores(folded: Tensor, stretch: Stretch, n_queries: int) -> Tensor:
    """The scaled scores (B, K, G*T, S) in float32, minus infinity where a key is not visible."""
    scale = 1.0 / math.sqrt(folded.shape[-1])
    # The scale goes into the product, which spares a pass over the scores; with beta = 0 the first argument is unread.
    nothing = folded.new_empty(1, 1, 1)
    product = torch.baddbmm(nothing, folded.flatten(0, 1), stretch.keys.flatten(0, 1).mT, beta=0, alpha=scale)
    scores = product.float().view(*folded.shape[:3], -1)
    if stretch.visible is not None:
        n_masked = stretch.visible.shape[-1]
        by_query = scores.view(*folded.shape[:2], -1, n_queries, scores.shape[-1])
        by_query[..., scores.shape[-1] - n_masked :].masked_fill_(~stretch.visible[:, None, None], -math.inf)
    return scores


def queries_per_block(n_heads: int, n_keys: int, device: torch.device) -> int:
    """How many queries to take at once: on a CPU the scores of a block should stay in its cache (16 MiB in float32).

    >>> queries_per_block(n_heads=32, n_keys=1024, device=torch.device("cpu"))
    128
    >>> queries_per_block(n_heads=32, n_keys=4096, device=torch.device("cpu"))
    32
    """
    most, n_scores = (128, 2**22) if device.type == "cpu" else (512, 2**26)
    return max(16, min(most, n_scores // (n_heads * max(n_keys, 1))))
