"""config.json of a Hugging Face checkpoint -> ModelConfig. What circius does not implement is refused by name.

A missing field means the default of the model type's class in transformers, and is reported; a field without which
no shape is known must be there.
"""

from pathlib import Path
from typing import Any

from circius.base.config import ModelConfig, Window
from circius.base.errors import CheckpointError, ConfigError
from circius.weights.fields import Fields, read_json_object
from circius.weights.packed import METHOD, VERSION

_MODEL_TYPES = ("mistral", "ministral", "llama")
_ARCHITECTURES = tuple(f"{name}ForCausalLM" for name in ("Mistral", "Ministral", "Llama"))
_LAYER_TYPES = ("full_attention", "sliding_attention")


def read_hf_config(file: Path) -> tuple[ModelConfig, list[str]]:
    """The model's configuration, and one sentence for each thing that was assumed.

    Raises:
        CheckpointError: the file is missing or no JSON, a field is missing or wrong, or the model is of a kind that
            circius does not implement.
    """
    fields = Fields(file, read_json_object(file))
    _refuse_other_models(fields)
    notes: list[str] = []
    dim, n_heads = fields.whole("hidden_size"), fields.whole("num_attention_heads")
    n_layers = fields.n_layers("num_hidden_layers")
    if n_heads < 1:
        raise CheckpointError(f"{file}: num_attention_heads must be positive, got {n_heads}")
    try:
        config = ModelConfig(
            dim=dim,
            n_layers=n_layers,
            head_dim=fields.whole("head_dim") if fields.has("head_dim") else dim // n_heads,
            hidden_dim=fields.whole("intermediate_size"),
            n_heads=n_heads,
            n_kv_heads=_n_kv_heads(fields, n_heads, notes),
            vocab_size=fields.whole("vocab_size"),
            context_len=fields.whole("max_position_embeddings"),
            window_size=_window_size(fields, n_layers, notes),
            rope_theta=_rope_theta(fields, notes),
            norm_eps=_norm_eps(fields, notes),
            tied_output=fields.flag("tie_word_embeddings"),
        )
    except ConfigError as error:
        raise CheckpointError(f"{file}: {error}") from error
    return config, notes


def _refuse_other_models(fields: Fields) -> None:
    model_type = fields.values.get("model_type")
    if model_type not in _MODEL_TYPES:
        raise CheckpointError(
            f"{fields.file}: model_type is {model_type!r}; circius implements {', '.join(_MODEL_TYPES)}"
        )
    architectures = fields.values.get("architectures") or []
    if not isinstance(architectures, list) or any(name not in _ARCHITECTURES for name in architectures):
        raise CheckpointError(
            f"{fields.file}: architectures is {architectures!r}; circius implements {', '.join(_ARCHITECTURES)}"
        )
    fields.refuse_unless("attention_bias", (False,), "biases in attention")
    fields.refuse_unless("mlp_bias", (False,), "biases in the feed-forward")
    fields.refuse_unless("hidden_act", ("silu", "swish"), "another activation than silu")
    fields.refuse_unless("partial_rotary_factor", (1,), "a rotation of a part of each head")
    _refuse_other_quantisation(fields)
    fields.refuse_unless("num_local_experts", (0, 1), "a mixture of experts")


def _refuse_other_quantisation(fields: Fields) -> None:
    quantised = fields.values.get("quantization_config")
    if not isinstance(quantised, dict) or quantised.get("quant_method") != METHOD:
        fields.refuse_unless("quantization_config", (), "weights that other software quantised, GGUF aside")
    elif quantised.get("version") != VERSION:
        raise CheckpointError(
            f"{fields.file}: the weights are packed in version {quantised.get('version')!r} of circius's format, this "
            f"circius reads version {VERSION}: quantise the model anew"
        )


def _n_kv_heads(fields: Fields, n_heads: int, notes: list[str]) -> int:
    if fields.has("num_key_value_heads"):
        return fields.whole("num_key_value_heads")
    if fields.values["model_type"] != "llama" and "num_key_value_heads" not in fields.values:
        raise CheckpointError(f"{fields.file}: the field 'num_key_value_heads' is missing")
    notes.append(f"{fields.file.name} has no num_key_value_heads: as many as attention heads, {n_heads}, are assumed")
    return n_heads


def _norm_eps(fields: Fields, notes: list[str]) -> float:
    if fields.has("rms_norm_eps"):
        return fields.number("rms_norm_eps")
    notes.append(f"{fields.file.name} has no rms_norm_eps: 1e-6, the default in transformers, is assumed")
    return 1e-6


def _rope_theta(fields: Fields, notes: list[str]) -> float:
    """The base of the rotation: inside `rope_parameters` (transformers 5) or at the top level (before)."""
    rope = _rope_parameters(fields)
    if rope.has("rope_theta"):
        return rope.number("rope_theta")
    if fields.has("rope_theta"):
        return fields.number("rope_theta")
    notes.append(f"{fields.file.name} has no rope_theta: 10000, the default in transformers, is assumed")
    return 1e4


def _rope_parameters(fields: Fields) -> Fields:
    """The object `rope_parameters`, once it is sure that neither it nor `rope_scaling` scales anything."""
    for name in ("rope_parameters", "rope_scaling"):
        value = fields.values.get(name)
        if value is not None and not (isinstance(value, dict) and _is_plain_rotation(value)):
            raise CheckpointError(
                f"{fields.file}: {name} is {value!r}; circius implements the plain rotation (rope_type 'default') only"
            )
    return Fields(fields.file, fields.values.get("rope_parameters") or {})


def _is_plain_rotation(rope: dict[str, Any]) -> bool:
    kind = rope.get("rope_type", rope.get("type", "default"))
    is_flat = not any(isinstance(value, dict) for value in rope.values())  # one rotation, not one a kind of layer
    return is_flat and kind == "default" and all(rope.get(n) in (None, 1) for n in ("factor", "partial_rotary_factor"))


def _window_size(fields: Fields, n_layers: int, notes: list[str]) -> Window | tuple[Window, ...]:
    if fields.values["model_type"] == "llama":
        if fields.has("sliding_window"):
            raise CheckpointError(
                f"{fields.file}: sliding_window is {fields.values['sliding_window']!r}, but model_type llama has no "
                "window: set it to null, or model_type to mistral"
            )
        return None
    if "sliding_window" not in fields.values:
        notes.append(f"{fields.file.name} has no sliding_window: 4096, the default in transformers, is assumed")
        window: Window = 4096
    else:
        window = fields.whole("sliding_window") if fields.has("sliding_window") else None
    if not fields.has("layer_types"):
        return window
    return _windows_of_layers(fields, window, n_layers)


def _windows_of_layers(fields: Fields, window: Window, n_layers: int) -> Window | tuple[Window, ...]:
    kinds = fields.values["layer_types"]
    if not isinstance(kinds, list) or len(kinds) != n_layers or any(kind not in _LAYER_TYPES for kind in kinds):
        raise CheckpointError(
            f"{fields.file}: layer_types must name one of {', '.join(_LAYER_TYPES)} for each of {n_layers} layers, "
            f"got {kinds!r}"
        )
    if window is None and "sliding_attention" in kinds:
        raise CheckpointError(f"{fields.file}: layer_types asks for sliding_attention, but there is no sliding_window")
    windows = tuple(window if kind == "sliding_attention" else None for kind in kinds)
    return windows[0] if len(set(windows)) == 1 else windows
