"""The shape of a model: Table 1 of the paper as a frozen dataclass, and the three official presets."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from circius.base.errors import ConfigError

Window = int | None

_SIZES = ("dim", "n_layers", "head_dim", "hidden_dim", "n_heads", "n_kv_heads", "vocab_size", "context_len")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Table 1 of the paper (arXiv 2310.06825), and the few facts that it leaves out.

    `window_size` counts the keys that a query sees, itself included: one int for all layers, None for full
    causal attention, or a tuple with one entry a layer. `context_len` is what the weights were trained for, in
    tokens; a windowed model can run past it at constant memory.

    Raises:
        ConfigError: a size that is not positive, or sizes that contradict each other.
    """

    dim: int
    n_layers: int
    head_dim: int
    hidden_dim: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    context_len: int
    window_size: Window | tuple[Window, ...] = None
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    tied_output: bool = False

    def __post_init__(self) -> None:
        for name in _SIZES:
            _check_positive_int(name, getattr(self, name))
        if self.n_heads % self.n_kv_heads:
            raise ConfigError(f"n_heads must be a multiple of n_kv_heads, got {self.n_heads} and {self.n_kv_heads}")
        if self.head_dim % 2:
            raise ConfigError(f"head_dim must be even to be rotated in pairs, got {self.head_dim}")
        for name in ("rope_theta", "norm_eps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not (0 < value < math.inf):
                raise ConfigError(f"{name} must be a positive number, got {value!r}")
        if isinstance(self.window_size, tuple) and len(self.window_size) != self.n_layers:
            raise ConfigError(
                f"window_size has {len(self.window_size)} entries for {self.n_layers} layers: "
                "give one number, None, or one entry a layer"
            )
        for window in self.windows:
            if window is not None:
                _check_positive_int("window_size", window)

    @property
    def windows(self) -> tuple[Window, ...]:
        """The window of each layer; its length is `n_layers`."""
        if isinstance(self.window_size, tuple):
            return self.window_size
        return (self.window_size,) * self.n_layers

    @property
    def has_bounded_cache(self) -> bool:
        """Whether every layer has a window, so that a text of any length fits into constant memory."""
        return None not in self.windows

    @property
    def n_parameters(self) -> int:
        """The number of weights, a tied output counted once.

        >>> PRESETS["v0.1"].n_parameters
        7241732096
        """
        attention = self.dim * self.head_dim * (2 * self.n_heads + 2 * self.n_kv_heads)
        layer = attention + 3 * self.dim * self.hidden_dim + 2 * self.dim
        embeddings = self.vocab_size * self.dim * (1 if self.tied_output else 2)
        return embeddings + self.n_layers * layer + self.dim

    @property
    def widest_window(self) -> Window:
        """The window of the layer that sees the furthest; None if there is a layer without one."""
        widest = 0
        for window in self.windows:
            if window is None:
                return None
            widest = max(widest, window)
        return widest

    def cache_bytes(self, n_tokens: int, *, bytes_per_value: int = 2) -> int:
        """The bytes of keys and values that one sequence of `n_tokens` keeps with the rolling buffer.

        >>> PRESETS["v0.1"].cache_bytes(32_768) // 2**20  # MiB, in bf16; 4096 without the window
        512
        """
        slots = sum(n_tokens if window is None else min(window, n_tokens) for window in self.windows)
        return 2 * slots * self.n_kv_heads * self.head_dim * bytes_per_value


def _check_positive_int(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} must be a positive whole number, got {value!r}")


def _table_1(*, vocab_size: int, context_len: int, window_size: Window, rope_theta: float) -> ModelConfig:
    return ModelConfig(
        dim=4096,
        n_layers=32,
        head_dim=128,
        hidden_dim=14336,
        n_heads=32,
        n_kv_heads=8,
        vocab_size=vocab_size,
        context_len=context_len,
        window_size=window_size,
        rope_theta=rope_theta,
    )


PRESETS: Mapping[str, ModelConfig] = MappingProxyType(
    {
        "v0.1": _table_1(vocab_size=32_000, context_len=8_192, window_size=4_096, rope_theta=1e4),
        "v0.2": _table_1(vocab_size=32_000, context_len=32_768, window_size=None, rope_theta=1e6),
        "v0.3": _table_1(vocab_size=32_768, context_len=32_768, window_size=None, rope_theta=1e6),
    }
)
"""The three official versions of Mistral 7B, by name."""
