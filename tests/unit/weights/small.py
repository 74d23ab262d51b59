"""Small models that the tests of writing share."""

from dataclasses import replace

import torch
from torch import Tensor

from circius.base.config import ModelConfig
from circius.model import Transformer

SMALL = ModelConfig(
    dim=64,
    n_layers=3,
    head_dim=32,  # not dim / n_heads: a file must say it
    hidden_dim=96,
    n_heads=4,
    n_kv_heads=2,
    vocab_size=101,
    context_len=64,
    window_size=5,
    rope_theta=30_000.0,
)
TIED = replace(SMALL, tied_output=True, window_size=None)
MIXED = replace(SMALL, window_size=(5, None, 5))
FORMATS = [
    ("hf", "folder"),
    ("consolidated", "folder"),
    ("consolidated-pth", "folder"),
    ("gguf", "file.gguf"),
]


def random_model(config: ModelConfig, dtype: torch.dtype = torch.float32, seed: int = 0) -> Transformer:
    """A model whose weights are all different, the norms too, and large enough to tell logits apart."""
    generator = torch.Generator().manual_seed(seed)
    model = Transformer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2, generator=generator)
            if parameter.ndim == 1:
                parameter.add_(1.0)
    return model.to(dtype).requires_grad_(False).eval()


def logits_of(model: Transformer, n_tokens: int = 17) -> Tensor:
    """The float32 logits of a fixed text longer than three windows."""
    tokens = torch.arange(n_tokens) * 37 % model.config.vocab_size
    return model.float()(tokens, [n_tokens])
