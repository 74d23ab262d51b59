"""The pieces of a block: RMSNorm, grouped-query attention, SwiGLU. Pre-norm, no biases, no dropout."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from circius.base.config import ModelConfig
from circius.kernels.attention import wants_gradients
from circius.kernels.linear import linear
from circius.kernels.rows import rms_norm, silu_times
from circius.kernels.trained_rows import trained_gated_product, trained_rms_norm, trained_silu_times
from circius.model.adapter import Adapt
from circius.model.packed_layers import project
from circius.model.rope import Rotation, rotate

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From the rotated query (N, H, D) and key (N, K, D) and the value (N, K, D) of a step to the mix (N, H, D).

Who may see whom, and what a cache remembers, is the step's business; a layer knows neither.
"""


class Linear(nn.Linear):
    """A matrix product without bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)
        self.fixed_order = False
        """Whether no bit of a row's product may depend on the other rows."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, fixed_order=self.fixed_order)


class RMSNorm(nn.Module):
    """Divides by the root mean square in float32, goes back to the input's dtype, and only then takes the weight.

    The order matters in bf16: it is that of the official code and of transformers' MistralRMSNorm.
    """

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        if wants_gradients(x, self.weight) and is_whole(x, self.weight):
            return trained_rms_norm(x, self.weight, self.eps)
        return rms_norm(x, self.weight, self.eps)


class Attention(nn.Module):
    """Projects to H query and K key-value heads, rotates, and lets the step's `attend` do the mixing."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.q_proj = Linear(config.dim, config.n_heads * config.head_dim)
        self.k_proj = Linear(config.dim, config.n_kv_heads * config.head_dim)
        self.v_proj = Linear(config.dim, config.n_kv_heads * config.head_dim)
        self.o_proj = Linear(config.n_heads * config.head_dim, config.dim)

    def forward(self, x: Tensor, rotation: Rotation, attend: Attend, adapt: Adapt | None = None) -> Tensor:
        products = project(x, self.q_proj, self.k_proj, self.v_proj)
        if adapt is not None:
            for name, product in zip(("q_proj", "k_proj", "v_proj"), products, strict=True):
                adapt(name, x, product)
        query, key, value = (product.view(len(x), -1, self.head_dim) for product in products)
        mixed = attend(rotate(query, rotation), rotate(key, rotation), value).reshape(len(x), -1)
        out: Tensor = self.o_proj(mixed)
        if adapt is not None:
            adapt("o_proj", mixed, out)
        return out


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate x) * up x)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.dim, config.hidden_dim)
        self.up_proj = Linear(config.dim, config.hidden_dim)
        self.down_proj = Linear(config.hidden_dim, config.dim)

    def forward(self, x: Tensor, adapt: Adapt | None = None) -> Tensor:
        gate, up = project(x, self.gate_proj, self.up_proj)
        if adapt is not None:
            adapt("gate_proj", x, gate)
            adapt("up_proj", x, up)
        down = self.down_proj
        is_trained = wants_gradients(gate, up) and is_whole(gate, up)
        if is_trained and adapt is None and isinstance(down, Linear) and is_whole(down.weight):
            return trained_gated_product(gate, up, down.weight)
        hidden = trained_silu_times(gate, up) if is_trained else silu_times(gate, up)
        out: Tensor = down(hidden)
        if adapt is not None:
            adapt("down_proj", hidden, out)
        return out


def is_whole(*tensors: Tensor) -> bool:
    """Whether all are plain tensors: those spread over processes are left to torch, which knows how."""
    return all(type(x) in (Tensor, nn.Parameter) for x in tensors)


class Block(nn.Module):
    """One layer: x + attention(norm x), then + feed-forward(norm of that). Members are named as in HF checkpoints."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.dim, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.dim, config.norm_eps)
        self.mlp = FeedForward(config)
        self.recomputes = False
        """Whether training keeps only what comes in, and computes the rest again on the way back."""

    def forward(self, x: Tensor, rotation: Rotation, attend: Attend, adapt: Adapt | None = None) -> Tensor:
        if self.recomputes and torch.is_grad_enabled():
            again: Tensor = checkpoint(self._computed, x, rotation, attend, adapt, use_reentrant=False)
            return again
        return self._computed(x, rotation, attend, adapt)

    def _computed(self, x: Tensor, rotation: Rotation, attend: Attend, adapt: Adapt | None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotation, attend, adapt)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x), adapt)
        return out
