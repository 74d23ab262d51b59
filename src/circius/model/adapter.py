"""Low-rank adapters (LoRA): thin matrices beside the products of a model's layers, for some rows of a batch or all.

A product W x becomes W x + scale * up (down x). The weights themselves stay as they are, whatever their number format,
so that rows of several adapters and of none are computed together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from circius.base.config import ModelConfig
from circius.base.errors import InvalidInputError
from circius.kernels import ring_attention
from circius.kernels.linear import linear

PROJECTIONS: Mapping[str, str] = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), "self_attn"),
    **dict.fromkeys(("gate_proj", "up_proj", "down_proj"), "mlp"),
}
"""Beside which matrices an adapter may stand, and in which part of a layer they are."""

Adapt = Callable[[str, Tensor, Tensor], None]
"""Given a projection's name, its input (N, inputs) and its product (N, outputs), adds to the product in place."""


class LowRank(NamedTuple):
    """The pair beside one matrix, in PEFT's words lora_A and lora_B."""

    down: Tensor
    """(rank, inputs)"""
    up: Tensor
    """(outputs, rank)"""


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """targets: names of `PROJECTIONS`. uses_rslora: the scale is alpha / sqrt(rank) instead of alpha / rank (arXiv
    2312.03732). dropout: of the pairs' inputs, in training. base_model: what it was trained on, for people.

    Raises:
        InvalidInputError: a value out of its range, or an unknown target.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...] = tuple(PROJECTIONS)
    uses_rslora: bool = False
    dropout: float = 0.0
    base_model: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise InvalidInputError(f"an adapter's rank must be a whole number, 1 or more, got {self.rank!r}")
        if not 0 < self.alpha < float("inf"):
            raise InvalidInputError(f"an adapter's alpha must be above 0, got {self.alpha!r}")
        if not 0 <= self.dropout < 1:
            raise InvalidInputError(f"an adapter's dropout must be at least 0 and below 1, got {self.dropout!r}")
        if not self.targets or not set(self.targets) <= PROJECTIONS.keys():
            raise InvalidInputError(
                f"an adapter's targets must be some of {', '.join(PROJECTIONS)}, got {', '.join(self.targets)!r}"
            )

    @property
    def scale(self) -> float:
        """By which the pairs' products are multiplied.

        >>> AdapterConfig(rank=4, alpha=8).scale, AdapterConfig(rank=4, alpha=8, uses_rslora=True).scale
        (2.0, 4.0)
        """
        return self.alpha / (self.rank**0.5 if self.uses_rslora else self.rank)


@dataclass(frozen=True, eq=False)
class Adapter:
    """parts: the pairs by the name of the module beside which they stand, such as `model.layers.0.self_attn.q_proj`."""

    config: AdapterConfig
    parts: Mapping[str, LowRank]

    def check_fits(self, config: ModelConfig) -> None:
        """Does nothing for an adapter of a model of that shape.

        Raises:
            InvalidInputError: it has a pair that the model has no place for, or one of another size.
        """
        for name, part in self.parts.items():
            shape = projection_shapes(config).get(name.rpartition(".")[2])
            if shape is None or name not in _names(config):
                raise InvalidInputError(
                    f"the adapter has a pair for {name}, which a model of {config.n_layers} layers does not have"
                )
            rank = self.config.rank
            if part.down.shape != (rank, shape[1]) or part.up.shape != (shape[0], rank):
                raise InvalidInputError(
                    f"the adapter's pair for {name} has the shapes {tuple(part.down.shape)} and {tuple(part.up.shape)}"
                    f"; rank {rank} beside a matrix of {shape[0]} x {shape[1]} needs {(rank, shape[1])} and "
                    f"{(shape[0], rank)}: was it trained on another model?"
                )

    def described(self) -> str:
        """For people: rank, scale, and beside which matrices."""
        config = self.config
        trained = f", trained on {config.base_model}" if config.base_model else ""
        return f"rank {config.rank}, scale {config.scale:g}, beside {', '.join(config.targets)}{trained}"

    @property
    def n_bytes(self) -> int:
        return sum(x.numel() * x.element_size() for part in self.parts.values() for x in part)

    def to(self, device: torch.device | str) -> "Adapter":
        """The same on a device, in float32, with rows that lie one behind the other."""
        return Adapter(
            self.config,
            {
                name: LowRank(*(x.to(device, torch.float32).contiguous() for x in part))
                for name, part in self.parts.items()
            },
        )

    @cached_property
    def fingerprint(self) -> bytes:
        """The same for the same pairs at the same scale, and for no others."""
        digest = blake2b(repr(self.config.scale).encode(), digest_size=16)
        for name, part in self.parts.items():
            digest.update(name.encode())
            for tensor in part:
                digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        return digest.digest()

    @cached_property
    def by_place(self) -> Mapping[tuple[int, str], LowRank]:
        """The pairs by layer and projection."""
        return {(int(name.split(".")[2]), name.rpartition(".")[2]): part for name, part in self.parts.items()}


class AdaptedRows:
    """Which tokens of a forward have which adapter.

    adapters: one for each row, or None. lengths: the tokens of each row.
    """

    def __init__(self, adapters: Sequence[Adapter | None], lengths: Sequence[int], device: torch.device) -> None:
        spans: dict[Adapter, list[slice]] = {}
        for adapter, length, end in zip(adapters, lengths, accumulate(lengths), strict=True):
            if adapter is not None:
                own = spans.setdefault(adapter, [])
                if own and own[-1].stop == end - length:
                    own[-1] = slice(own[-1].start, end)
                else:
                    own.append(slice(end - length, end))
        self._groups = [(adapter, _joined(own, device)) for adapter, own in spans.items()]
        # One order of additions, whatever else is computed: then a row's numbers do not depend on its neighbours.
        self._fixed_order = device.type == "cpu" and ring_attention.is_fast() and not torch.is_grad_enabled()

    def add(self, layer: int, name: str, x: Tensor, product: Tensor) -> None:
        """What the adapters of the rows make of `x`, added to `product`; worked out in float32 and rounded once."""
        for adapter, tokens in self._groups:
            part = adapter.by_place.get((layer, name))
            if part is not None:
                thin = linear(x[tokens].float(), part.down, fixed_order=self._fixed_order)
                change = linear(thin, part.up, fixed_order=self._fixed_order)
                product[tokens] = (product[tokens] + adapter.config.scale * change).to(product.dtype)


def _joined(spans: Sequence[slice], device: torch.device) -> slice | Tensor:
    """A slice where one will do: it costs no copy."""
    if len(spans) == 1:
        return spans[0]
    return torch.cat([torch.arange(span.start, span.stop) for span in spans]).to(device)


def projection_shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Outputs and inputs of each projection."""
    heads, kv_heads = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    return {
        "q_proj": (heads, config.dim),
        "k_proj": (kv_heads, config.dim),
        "v_proj": (kv_heads, config.dim),
        "o_proj": (config.dim, heads),
        "gate_proj": (config.hidden_dim, config.dim),
        "up_proj": (config.hidden_dim, config.dim),
        "down_proj": (config.dim, config.hidden_dim),
    }


def _names(config: ModelConfig) -> set[str]:
    return {module_name(layer, name) for layer in range(config.n_layers) for name in PROJECTIONS}


def module_name(layer: int, projection: str) -> str:
    """The name of a layer's matrix in a model.

    >>> module_name(3, "up_proj")
    'model.layers.3.mlp.up_proj'
    """
    return f"model.layers.{layer}.{PROJECTIONS[projection]}.{projection}"
