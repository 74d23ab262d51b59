"""What a forward costs by the model's shape: operations to do, and bytes of the cache to read. No torch here."""

from circius.base.config import ModelConfig, Window


def keys_seen(window: Window, begin: int, n_tokens: int) -> int:
    """How many keys the tokens from position `begin` on see, all of them together.

    >>> keys_seen(3, begin=0, n_tokens=5)  # 1 + 2 + 3 + 3 + 3
    12
    """
    end = begin + n_tokens
    full_from = end if window is None else min(max(window, begin), end)
    rising = (full_from * (full_from + 1) - begin * (begin + 1)) // 2
    return rising + (end - full_from) * (window or 0)


def operations(config: ModelConfig, *, begin: int, n_tokens: int, n_logits: int) -> int:
    """The multiplications and additions of one sequence's tokens from position `begin` on.

    n_logits: for how many of the tokens the output matrix is multiplied. Counted are the products with matrices and
    attention's two; the rest is less than a hundredth of it.
    """
    projections = config.dim * config.head_dim * (2 * config.n_heads + 2 * config.n_kv_heads)
    layer = projections + 3 * config.dim * config.hidden_dim
    seen = sum(keys_seen(window, begin, n_tokens) for window in config.windows)
    return (
        2 * n_tokens * config.n_layers * layer
        + 2 * n_logits * config.vocab_size * config.dim
        + 4 * config.n_heads * config.head_dim * seen
    )


def cache_bytes_read(config: ModelConfig, *, begin: int, n_tokens: int, bytes_per_value: float) -> int:
    """The bytes of keys and values read by tokens decoded one after another from position `begin` on, of one sequence.

    >>> from circius.base.config import PRESETS
    >>> cache_bytes_read(PRESETS["v0.1"], begin=4096, n_tokens=1, bytes_per_value=2) // 2**20
    512
    """
    seen = sum(keys_seen(window, begin, n_tokens) for window in config.windows)
    return round(2 * seen * config.n_kv_heads * config.head_dim * bytes_per_value)
