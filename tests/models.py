"""Tiny models for tests, of every shape that matters: windows, groups, tied outputs."""

import torch

from circius.base.config import ModelConfig, Window
from circius.model import Transformer


def tiny_config(
    *,
    window: Window | tuple[Window, ...] = 5,
    n_layers: int = 2,
    n_heads: int = 4,
    n_kv_heads: int = 2,
    tied: bool = False,
    vocab_size: int = 61,
) -> ModelConfig:
    return ModelConfig(
        dim=32,
        n_layers=n_layers,
        head_dim=8,
        hidden_dim=48,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        vocab_size=vocab_size,
        context_len=64,
        window_size=window,
        rope_theta=1e4,
        tied_output=tied,
    )


def random_model(config: ModelConfig, seed: int = 0) -> Transformer:
    """A model whose weights have the spread of a trained one, so that logits are neither flat nor huge."""
    model = Transformer(config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.1, generator=generator)
        else:
            torch.nn.init.normal_(parameter, std=0.15, generator=generator)
    return model.eval()


def random_tokens(n: int, vocab_size: int = 61, seed: int = 0) -> torch.Tensor:
    return torch.randint(vocab_size, (n,), generator=torch.Generator().manual_seed(seed))
