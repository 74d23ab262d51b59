"""Random adapters for tests, large enough to change what a model says."""

import torch

from circius.base.config import ModelConfig
from circius.model.adapter import PROJECTIONS, Adapter, AdapterConfig, LowRank, module_name, projection_shapes


def random_adapter(
    config: ModelConfig,
    *,
    seed: int = 0,
    rank: int = 3,
    targets: tuple[str, ...] = tuple(PROJECTIONS),
    alpha: float = 6,
) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    parts = {}
    for layer in range(config.n_layers):
        for name in targets:
            outputs, inputs = projection_shapes(config)[name]
            down = torch.randn(rank, inputs, generator=generator) * 0.2
            up = torch.randn(outputs, rank, generator=generator) * 0.2
            parts[module_name(layer, name)] = LowRank(down, up)
    return Adapter(AdapterConfig(rank=rank, alpha=alpha, targets=targets), parts)
