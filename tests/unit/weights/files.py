"""Small checkpoints in every format, written by other people's code (torch, safetensors, gguf) for our readers."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from safetensors.torch import save_file
from torch import Tensor

from circius.base.config import ModelConfig
from circius.weights.names import expected_shapes

State = dict[str, Tensor]

CONSOLIDATED = {
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "model.embed_tokens": "tok_embeddings",
    "model.norm": "norm",
    "lm_head": "output",
    "model.layers.": "layers.",
}
GGUF = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.down_proj": "ffn_down",
    "mlp.up_proj": "ffn_up",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers.": "blk.",
}


def random_state(config: ModelConfig, dtype: torch.dtype = torch.float32) -> State:
    generator = torch.Generator().manual_seed(1)
    return {
        name: (torch.randn(shape, generator=generator) * 0.1).to(dtype)
        for name, shape in expected_shapes(config).items()
    }


def renamed(name: str, table: Mapping[str, str]) -> str:
    for ours, theirs in table.items():
        name = name.replace(ours, theirs)
    return name


def interleaved(state: State, config: ModelConfig) -> State:
    """The rows of q and k in the order x0, x0', x1, x1', ..., one row after the other, as a definition."""
    result = dict(state)
    half = config.head_dim // 2
    for name in state:
        if "q_proj" in name or "k_proj" in name:
            rows = []
            for head in range(len(state[name]) // config.head_dim):
                for pair in range(half):
                    rows += [state[name][head * 2 * half + pair], state[name][head * 2 * half + half + pair]]
            result[name] = torch.stack(rows)
    return result


def hf_json(config: ModelConfig, **changes: Any) -> dict[str, Any]:
    values = {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "hidden_act": "silu",
        "hidden_size": config.dim,
        "intermediate_size": config.hidden_dim,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_len,
        "sliding_window": config.window_size,
        "rope_theta": config.rope_theta,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied_output,
    } | changes
    return {name: value for name, value in values.items() if value != "absent"}


def params_json(config: ModelConfig, **changes: Any) -> dict[str, Any]:
    names = ("dim", "n_layers", "head_dim", "hidden_dim", "n_heads", "n_kv_heads", "vocab_size", "norm_eps")
    values = {name: getattr(config, name) for name in names} | {
        "sliding_window": config.window_size,
        "rope_theta": config.rope_theta,
        "max_seq_len": config.context_len,
    }
    return {name: value for name, value in (values | changes).items() if value != "absent"}


def write_json(file: Path, values: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(values))
    return file


def write_hf(folder: Path, config: ModelConfig, state: State, *, shards: int = 1, **changes: Any) -> Path:
    write_json(folder / "config.json", hf_json(config, **changes))
    if shards == 1:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    names = list(state)
    size = math.ceil(len(names) / shards)
    weight_map = {}
    for index in range(shards):
        file = f"model-{index + 1:05}-of-{shards:05}.safetensors"
        part = {name: state[name] for name in names[index * size : (index + 1) * size]}
        save_file(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})
    return folder


def write_consolidated(
    folder: Path, config: ModelConfig, state: State, *, file: str = "consolidated.safetensors", **changes: Any
) -> Path:
    write_json(folder / "params.json", params_json(config, **changes))
    stored = {renamed(name, CONSOLIDATED): value for name, value in interleaved(state, config).items()}
    if file.endswith(".pth"):
        torch.save(stored, folder / file)
    else:
        save_file(stored, folder / file)
    return folder


def write_gguf(
    file: Path,
    config: ModelConfig,
    state: State,
    *,
    kinds: Mapping[str, Kind] | None = None,
    extra: Mapping[str, Any] | None = None,
    architecture: str = "llama",
) -> Path:
    """`kinds` says the type of a weight by its GGUF name; `extra` adds metadata after the usual keys."""
    file.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_block_count(config.n_layers)
    writer.add_context_length(config.context_len)
    writer.add_embedding_length(config.dim)
    writer.add_feed_forward_length(config.hidden_dim)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_token_list([f"piece {i}" for i in range(config.vocab_size)])
    if config.head_dim != config.dim // config.n_heads:
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    for key, value in (extra or {}).items():
        (writer.add_string if isinstance(value, str) else writer.add_uint32)(key, value)
    for name, value in interleaved(state, config).items():
        own = renamed(name, GGUF)
        kind = (kinds or {}).get(own, Kind.F32)
        writer.add_tensor(own, stored_blocks(value.float().numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def stored_blocks(values: np.ndarray, kind: Kind) -> np.ndarray:
    """`values` quantised; for the kinds that the package cannot quantise, blocks of random bits with sane scales."""
    if kind not in (Kind.Q4_K, Kind.Q5_K, Kind.Q6_K):
        return gguf.quants.quantize(values, kind)
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    n_rows, n_blocks = values.shape[0], values.shape[1] // block
    blocks = np.random.default_rng(0).integers(0, 256, (n_rows, n_blocks, block_bytes), dtype=np.uint8)
    scale = np.frombuffer(np.float16(0.01).tobytes(), dtype=np.uint8)
    for at in (-2,) if kind == Kind.Q6_K else (0, 2):  # where d, or d and dmin, lie in a block
        blocks[..., at : at + 2 if at + 2 else None] = scale
    return blocks.reshape(n_rows, -1)
