"""The JSON file beside the weights that says what model they are: config.json or params.json."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from circius.base.config import ModelConfig
from circius.base.errors import ConfigError, InvalidInputError
from circius.weights.cast import short_name


def hf_config(config: ModelConfig, dtype: torch.dtype, more: Mapping[str, object]) -> dict[str, object]:
    """The config.json of a `MistralForCausalLM`, for transformers 4 and 5 alike.

    Where only some layers have the window, it is that of a `MinistralForCausalLM`, the same architecture with a
    kind of attention for each layer, which transformers has since version 5.

    more: further keys such as bos_token_id and eos_token_id. Transformers takes 1 and 2 for these when they are absent.

    Raises:
        ConfigError: layers with windows of different sizes.
        InvalidInputError: `more` has a key that follows from the model.
    """
    windows = config.windows
    sizes = {window for window in windows if window is not None}
    if len(sizes) > 1:
        raise ConfigError(
            f"config.json has one sliding_window, but this model's layers have {sorted(sizes)}: "
            "use the consolidated layout"
        )
    theta = float(config.rope_theta)
    name = "Ministral" if len(set(windows)) > 1 else "Mistral"
    described: dict[str, object] = {
        "architectures": [f"{name}ForCausalLM"],
        "model_type": name.lower(),
        "vocab_size": config.vocab_size,
        "hidden_size": config.dim,
        "intermediate_size": config.hidden_dim,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.context_len,
        "initializer_range": 0.02,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": theta,  # read by transformers 4
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},  # read by transformers 5
        "sliding_window": next(iter(sizes), None),  # null must be said: the default is 4096
        "attention_dropout": 0.0,
        "tie_word_embeddings": config.tied_output,
        "use_cache": True,
        "torch_dtype": short_name(dtype),
    }
    if name == "Ministral":
        described["layer_types"] = ["sliding_attention" if window else "full_attention" for window in windows]
    clash = sorted(described.keys() & more.keys())
    if clash:
        raise InvalidInputError(f"config.json keys {', '.join(clash)} follow from the model and cannot be given")
    return described | dict(more)


def consolidated_params(config: ModelConfig) -> dict[str, object]:
    """The params.json of a consolidated checkpoint.

    `rope_theta` is always written, since readers disagree about its default. `sliding_window` is a number, or a list
    with one entry a layer; it is absent when no layer has one. A tied model has no `output.weight` in its weights
    and says `tied_embeddings`.
    """
    params: dict[str, object] = {
        "dim": config.dim,
        "n_layers": config.n_layers,
        "head_dim": config.head_dim,
        "hidden_dim": config.hidden_dim,
        "n_heads": config.n_heads,
        "n_kv_heads": config.n_kv_heads,
        "norm_eps": config.norm_eps,
        "vocab_size": config.vocab_size,
        "rope_theta": float(config.rope_theta),
        "max_seq_len": config.context_len,
    }
    windows = config.windows
    if any(window is not None for window in windows):
        params["sliding_window"] = windows[0] if len(set(windows)) == 1 else list(windows)
    if config.tied_output:
        params["tied_embeddings"] = True
    return params


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Writes one JSON object, indented, in UTF-8."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
