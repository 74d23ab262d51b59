"""torchtitan's Llama 3 with Mistral's window, for both kinds of attention that torchtitan 0.3.0 gives language models.

Its two kinds count a window differently. `varlen` takes how many tokens *before* the query are seen, so W keys are
(W - 1, 0). `flex` takes a mask, and gets the one comparison of `circius.model.window`. Both see documents by where
positions begin anew at 0, and never look into the one before.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor, nn
from torchtitan.models.common import ComplexRoPE, Embedding, Linear, RMSNorm
from torchtitan.models.common.attention import (
    FlexAttention,
    VarlenAttention,
    get_efficient_causal_mask_mod_for_packed_document,
)
from torchtitan.models.common.config_utils import get_attention_config, make_ffn_config, make_gqa_config
from torchtitan.models.common.param_init import depth_scaled_std
from torchtitan.models.llama3.model import Llama3Model, Llama3TransformerBlock

from circius.base.config import ModelConfig, Window
from circius.base.errors import ConfigError
from circius.model.window import visible

BACKENDS = ("flex", "flex_flash", "varlen")
_STD = 0.02


class MistralModel(Llama3Model):  # type: ignore[misc]
    """Llama 3's blocks, names and sharding; one window for all layers."""

    @dataclass(kw_only=True, slots=True)
    class Config(Llama3Model.Config):  # type: ignore[misc]
        """window_size: keys that a query sees, itself included; None for all of its past."""

        window_size: int | None = None

        def get_nparams_and_flops(self, model: nn.Module, seq_len: int) -> tuple[int, int]:
            """torchtitan's own counts, with no more keys for a query than its window has."""
            n_seen = seq_len if self.window_size is None else min(seq_len, self.window_size)
            counts: tuple[int, int] = Llama3Model.Config.get_nparams_and_flops(self, model, n_seen)
            return counts

    def get_attention_masks(self, positions: Tensor) -> Any:
        """torchtitan's own masks, and with flex attention one that knows the window. positions: (B, T)."""
        attention, window = self.config.first_attention, self.config.window_size
        if window is None or not isinstance(attention.inner_attention, FlexAttention.Config):
            return super().get_attention_masks(positions)
        same_document = get_efficient_causal_mask_mod_for_packed_document(positions)
        return self._create_flex_attention_mask(positions, attention, [same_document, _window_mask(window)])


def model_config(shape: ModelConfig, attn_backend: str = "flex") -> MistralModel.Config:
    """torchtitan's configuration of a model of our shape.

    attn_backend: "flex", which context parallelism needs too; "varlen", whose kernels are flash-attention's (2 before
        Hopper; on it and on Blackwell torchtitan asks for versions 3 and 4); "flex_flash".

    Raises:
        ConfigError: a backend that does not exist, windows that differ between layers, or a tied output.
    """
    if attn_backend not in BACKENDS:
        raise ConfigError(f"attn_backend must be one of {', '.join(BACKENDS)}, got {attn_backend!r}")
    if len(set(shape.windows)) > 1:
        raise ConfigError(
            f"circius.titan has one window for all layers, got {shape.windows}: give all of them the same"
        )
    if shape.tied_output:
        raise ConfigError("circius.titan has no tied output, and no Mistral 7B has one: set tied_output=False")
    window = shape.widest_window
    inner = _with_window(get_attention_config(attn_backend), window)
    return MistralModel.Config(
        dim=shape.dim,
        vocab_size=shape.vocab_size,
        window_size=window,
        tok_embeddings=Embedding.Config(
            num_embeddings=shape.vocab_size, embedding_dim=shape.dim, param_init=_normal(_STD)
        ),
        norm=_norm(shape),
        lm_head=Linear.Config(in_features=shape.dim, out_features=shape.vocab_size, param_init=_normal(_STD)),
        layers=[_layer(shape, index, inner) for index in range(shape.n_layers)],
    )


def _layer(shape: ModelConfig, index: int, inner: Any) -> Any:
    return Llama3TransformerBlock.Config(
        attention_norm=_norm(shape),
        ffn_norm=_norm(shape),
        attention=make_gqa_config(
            dim=shape.dim,
            n_heads=shape.n_heads,
            n_kv_heads=shape.n_kv_heads,
            head_dim=shape.head_dim,
            wqkv_param_init=_normal(_STD),
            wo_param_init=_normal(depth_scaled_std(_STD, index)),
            inner_attention=inner,
            fuse_qkv=True,
            rope=ComplexRoPE.Config(dim=shape.head_dim, max_seq_len=shape.context_len, theta=shape.rope_theta),
        ),
        feed_forward=make_ffn_config(
            dim=shape.dim,
            hidden_dim=shape.hidden_dim,
            w1_param_init=_normal(_STD),
            w2w3_param_init=_normal(depth_scaled_std(_STD, index)),
        ),
    )


def _with_window(inner: Any, window: Window) -> Any:
    if window is None or not isinstance(inner, VarlenAttention.Config):
        return inner
    return replace(inner, window_size=(window - 1, 0))


def _window_mask(window: int) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """A mask over places in a row; inside one document they are as far apart as positions are."""

    def in_window(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen: Tensor = visible(query, key, window)
        return seen

    return in_window


def _norm(shape: ModelConfig) -> Any:
    return RMSNorm.Config(normalized_shape=shape.dim, eps=shape.norm_eps, param_init={"weight": nn.init.ones_})


def _normal(std: float) -> dict[str, Callable[..., Any]]:
    return {"weight": partial(nn.init.trunc_normal_, std=std)}
