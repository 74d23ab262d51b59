"""One weight, three names (Hugging Face's, which are ours, consolidated, GGUF), and the row order of RoPE.

The names inside circius are those of a Hugging Face checkpoint, with the rows of q and k in the order that
rotate-half RoPE wants. Consolidated and GGUF files keep them in interleaved order (x0, y0, x1, y1, ...).
"""

import re

from torch import Tensor

from circius.base.config import ModelConfig

EMBEDDING = "model.embed_tokens.weight"
NORM = "model.norm.weight"
OUTPUT = "lm_head.weight"

# HF name, consolidated name, GGUF name
_OUTER = (
    (EMBEDDING, "tok_embeddings.weight", "token_embd.weight"),
    (NORM, "norm.weight", "output_norm.weight"),
    (OUTPUT, "output.weight", "output.weight"),
)
_IN_LAYER = (
    ("input_layernorm.weight", "attention_norm.weight", "attn_norm.weight"),
    ("self_attn.q_proj.weight", "attention.wq.weight", "attn_q.weight"),
    ("self_attn.k_proj.weight", "attention.wk.weight", "attn_k.weight"),
    ("self_attn.v_proj.weight", "attention.wv.weight", "attn_v.weight"),
    ("self_attn.o_proj.weight", "attention.wo.weight", "attn_output.weight"),
    ("post_attention_layernorm.weight", "ffn_norm.weight", "ffn_norm.weight"),
    ("mlp.gate_proj.weight", "feed_forward.w1.weight", "ffn_gate.weight"),
    ("mlp.up_proj.weight", "feed_forward.w3.weight", "ffn_up.weight"),
    ("mlp.down_proj.weight", "feed_forward.w2.weight", "ffn_down.weight"),
)
_HF, _CONSOLIDATED, _GGUF = range(3)
_LAYER_PREFIX = ("model.layers.", "layers.", "blk.")
_ROTARY = (".self_attn.q_proj.", ".self_attn.k_proj.")


def to_consolidated(name: str) -> str:
    """The consolidated name of a Hugging Face weight name.

    >>> to_consolidated("model.layers.3.mlp.down_proj.weight")
    'layers.3.feed_forward.w2.weight'
    """
    return _known(name, _translate(name, _HF, _CONSOLIDATED))


def to_gguf(name: str) -> str:
    """The GGUF name of a Hugging Face weight name.

    >>> to_gguf("model.layers.3.self_attn.o_proj.weight")
    'blk.3.attn_output.weight'
    """
    return _known(name, _translate(name, _HF, _GGUF))


def from_consolidated(name: str) -> str | None:
    """The Hugging Face name of a consolidated weight name; None when it names no weight of this architecture.

    >>> from_consolidated("layers.3.attention.wq.weight")
    'model.layers.3.self_attn.q_proj.weight'
    """
    return _translate(name, _CONSOLIDATED, _HF)


def from_gguf(name: str) -> str | None:
    """The Hugging Face name of a GGUF weight name; None when it names no weight of this architecture.

    >>> from_gguf("token_embd.weight")
    'model.embed_tokens.weight'
    """
    return _translate(name, _GGUF, _HF)


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every weight, by Hugging Face name, in the order of a forward pass.

    A tied model has no `lm_head.weight`: the embedding is its output.

    >>> from circius.base.config import PRESETS
    >>> shapes = expected_shapes(PRESETS["v0.1"])
    >>> len(shapes), shapes["model.layers.0.self_attn.k_proj.weight"]
    (291, (1024, 4096))
    """
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (config.vocab_size, config.dim)}
    for layer in range(config.n_layers):
        for name, shape in _layer_shapes(config).items():
            shapes[f"model.layers.{layer}.{name}"] = shape
    shapes[NORM] = (config.dim,)
    if not config.tied_output:
        shapes[OUTPUT] = (config.vocab_size, config.dim)
    return shapes


def is_rotary(name: str) -> bool:
    """Whether RoPE rotates the rows of this Hugging Face weight, so that their order depends on the format."""
    return any(part in name for part in _ROTARY)


def rotary_heads(name: str, config: ModelConfig) -> int | None:
    """The number of heads that the rows of this Hugging Face weight make: for q and k; None for any other."""
    if not is_rotary(name):
        return None
    return config.n_heads if ".q_proj." in name else config.n_kv_heads


def interleaved_to_half(rows: Tensor, n_heads: int) -> Tensor:
    """The rows of q or k, from interleaved order (consolidated, GGUF) to rotate-half order (Hugging Face).

    `rows` is (n_heads * head_dim, ...) with any trailing shape: the B matrix of a LoRA adapter fits too. The
    result is a contiguous copy.

    >>> import torch
    >>> interleaved_to_half(torch.arange(8), n_heads=2).tolist()
    [0, 2, 1, 3, 4, 6, 5, 7]
    """
    return _swap_in_heads(rows, n_heads, inner=2)


def half_to_interleaved(rows: Tensor, n_heads: int) -> Tensor:
    """The rows of q or k, from rotate-half order to interleaved order: the inverse of `interleaved_to_half`.

    >>> import torch
    >>> half_to_interleaved(torch.arange(6), n_heads=1).tolist()
    [0, 3, 1, 4, 2, 5]
    """
    return _swap_in_heads(rows, n_heads, outer=2)


def _swap_in_heads(rows: Tensor, n_heads: int, *, outer: int = -1, inner: int = -1) -> Tensor:
    if rows.shape[0] % (2 * n_heads):
        raise ValueError(f"{rows.shape[0]} rows cannot be {n_heads} heads of an even size")
    head_dim = rows.shape[0] // n_heads
    outer, inner = (head_dim // 2, inner) if outer < 0 else (outer, head_dim // 2)
    split = rows.reshape(n_heads, outer, inner, *rows.shape[1:])
    return split.transpose(1, 2).reshape(rows.shape).contiguous()


def _translate(name: str, source: int, target: int) -> str | None:
    for names in _OUTER:
        if names[source] == name:
            return names[target]
    match = re.fullmatch(re.escape(_LAYER_PREFIX[source]) + r"(0|[1-9][0-9]*)\.(.+)", name)
    if match is None:
        return None
    for names in _IN_LAYER:
        if names[source] == match[2]:
            return f"{_LAYER_PREFIX[target]}{match[1]}.{names[target]}"
    return None


def _known(name: str, translated: str | None) -> str:
    if translated is None:
        raise KeyError(f"{name!r} is not the Hugging Face name of a weight of this architecture")
    return translated


def _layer_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    queries, keys = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    return {
        "input_layernorm.weight": (config.dim,),
        "self_attn.q_proj.weight": (queries, config.dim),
        "self_attn.k_proj.weight": (keys, config.dim),
        "self_attn.v_proj.weight": (keys, config.dim),
        "self_attn.o_proj.weight": (config.dim, queries),
        "post_attention_layernorm.weight": (config.dim,),
        "mlp.gate_proj.weight": (config.hidden_dim, config.dim),
        "mlp.up_proj.weight": (config.hidden_dim, config.dim),
        "mlp.down_proj.weight": (config.dim, config.hidden_dim),
    }
