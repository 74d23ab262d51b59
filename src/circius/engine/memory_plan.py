"""How much of the machine's memory the engine takes, worked out and shown before anything is computed."""

from dataclasses import dataclass
from pathlib import Path

import torch

from circius.base.errors import InvalidInputError
from circius.engine.prefix import PAGE
from circius.engine.stream import most_pages
from circius.model import Transformer

_SHARE = 0.9
"""Of the free memory, what may be used when nobody says how much."""
_SPARE = 2
"""Times the cache that running streams take, for what they leave behind and others may find."""
_CGROUP = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """All sizes in bytes. weights: mapped files included, which the system may take back. scratch: what a step needs.
    cache: for `cache_tokens` tokens, whoever they belong to."""

    limit: int
    weights: int
    scratch: int
    cache: int
    cache_tokens: int
    stream_tokens: int
    max_streams: int

    @property
    def full_streams(self) -> int:
        """Streams that can be as long as the context allows at the same time; shorter ones, more of them."""
        return self.cache_tokens // self.stream_tokens

    def lines(self) -> list[str]:
        """The plan for people."""
        return [
            f"memory {_gib(self.limit)}: weights {_gib(self.weights)}, a step's scratch {_gib(self.scratch)}, "
            f"cache {_gib(self.cache)}",
            f"the cache takes {self.cache_tokens:,} tokens: {self.full_streams} streams at once of any length that the "
            f"context allows ({self.stream_tokens:,} places each), {self.max_streams} at most",
        ]


def plan_memory(
    model: Transformer,
    *,
    context: int,
    max_streams: int,
    chunk_size: int,
    max_bytes: int | None = None,
    cache_tokens: int | None = None,
) -> MemoryPlan:
    """A cache that fits: twice what `max_streams` of full length take, or as much as there is memory for.

    max_bytes: for everything, instead of nine tenths of what is free. cache_tokens: instead of what follows from that.

    Raises:
        InvalidInputError: not even one stream of full length has a place.
    """
    stream_tokens = PAGE * most_pages(context, model.config.widest_window, chunk_size)
    page_bytes = PAGE * _bytes_per_token(model)
    weights = weight_bytes(model)
    scratch = _scratch_bytes(model, chunk_size + max_streams)
    free = free_bytes(model.device)
    # Weights that are in memory already are not part of what is free; mapped ones are pages that can be had back.
    limit = max_bytes if max_bytes is not None else int(_SHARE * free) + (0 if model.is_packed else weights)
    if cache_tokens is None:
        room = max(0, limit - weights - scratch) // page_bytes * PAGE
        cache_tokens = min(room, _SPARE * max_streams * stream_tokens)
    cache = cache_tokens // PAGE * page_bytes
    plan = MemoryPlan(
        limit=limit,
        weights=weights,
        scratch=scratch,
        cache=cache,
        cache_tokens=cache_tokens // PAGE * PAGE,
        stream_tokens=stream_tokens,
        max_streams=max_streams,
    )
    if plan.full_streams < 1:
        raise InvalidInputError(
            f"a stream of {context:,} tokens takes {_gib(stream_tokens // PAGE * page_bytes)} of cache, and beside "
            f"weights ({_gib(weights)}) and scratch ({_gib(scratch)}) there is room for {_gib(cache)} in "
            f"{_gib(limit)}: give a smaller --context, fewer --kv-bits, or more --max-memory"
        )
    if weights + scratch + cache > limit:
        raise InvalidInputError(
            f"weights ({_gib(weights)}), scratch ({_gib(scratch)}) and a cache of {cache_tokens:,} tokens "
            f"({_gib(cache)}) are more than {_gib(limit)}: give a smaller --cache-tokens, or more --max-memory"
        )
    return plan


def weight_bytes(model: Transformer) -> int:
    """Of all parameters and packed matrices."""
    seen = {x.data_ptr(): x.numel() * x.element_size() for x in (*model.parameters(), *model.buffers())}
    return sum(seen.values())


def free_bytes(device: torch.device) -> int:
    """What could be taken now without anything being swapped out."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = _available()
    try:
        limit = _CGROUP.read_text().strip()
        used = int(_CGROUP.with_name("memory.current").read_text())
    except (OSError, ValueError):
        return free
    return free if limit == "max" else min(free, max(0, int(limit) - used))


def _available() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kib = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return 8 << 30  # systems that do not say: as much as most machines have
    return kib * 1024


def _bytes_per_token(model: Transformer) -> int:
    """In the cache, in all layers: pages hold every layer, whatever its window."""
    config = model.config
    scale = 4 if model.cache_dtype == torch.int8 else 0
    return 2 * config.n_layers * config.n_kv_heads * (config.head_dim * model.cache_dtype.itemsize + scale)


def _scratch_bytes(model: Transformer, n_tokens: int) -> int:
    """Hidden states, projections and the logits of a step, generously."""
    config = model.config
    per_token = 4 * (6 * config.dim + 3 * config.hidden_dim + 4 * config.n_heads * config.head_dim)
    return n_tokens * per_token + 4 * 2 * config.vocab_size * min(n_tokens, 512)


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.2f} GiB"
