"""The metadata of a GGUF file -> ModelConfig. What circius does not implement is refused by key."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from circius.base.config import ModelConfig, Window
from circius.base.errors import CheckpointError, ConfigError
from circius.weights.fields import Fields
from circius.weights.opened import KEEP, Keep

_ARCHITECTURE = "llama"  # Mistral 7B goes by this name in llama.cpp
_READ = frozenset(
    "llama." + key
    for key in (
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "vocab_size",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.value_length",
        "attention.layer_norm_rms_epsilon",
        "attention.sliding_window",
        "rope.freq_base",
        "rope.dimension_count",
        "rope.scale_linear",
        "rope.scaling.type",
        "rope.scaling.factor",
        "rope.scaling.original_context_length",
        "rope.scaling.finetuned",
        "expert_count",
        "expert_used_count",
        "tensor_data_layout",
    )
)


def read_gguf_config(
    file: Path,
    metadata: Mapping[str, Any],
    *,
    vocab_size: int,
    tied_output: bool,
    window: Window | Keep,
    rope_theta: float | None,
) -> tuple[ModelConfig, list[str]]:
    """The model's configuration, and one sentence for each thing that was assumed.

    `vocab_size` and `tied_output` are what the tensors say. `window` and `rope_theta` are what the caller asks for;
    they are not applied here, but then nothing needs to be assumed.

    Raises:
        CheckpointError: a key is missing or wrong, or the model is of a kind that circius does not implement.
    """
    fields = Fields(file, metadata)
    _refuse_other_models(fields)
    notes = [
        f"the key {key} of {file.name} is unknown to circius and was not used"
        for key in metadata
        if key.startswith("llama.") and key not in _READ
    ]
    n_heads = fields.whole("llama.attention.head_count")
    try:
        config = ModelConfig(
            dim=fields.whole("llama.embedding_length"),
            n_layers=fields.n_layers("llama.block_count"),
            head_dim=_head_dim(fields, n_heads),
            hidden_dim=fields.whole("llama.feed_forward_length"),
            n_heads=n_heads,
            n_kv_heads=_n_kv_heads(fields, n_heads),
            vocab_size=_vocab_size(fields, vocab_size),
            context_len=fields.whole("llama.context_length"),
            window_size=_window_size(fields, window, notes),
            rope_theta=_rope_theta(fields, rope_theta, notes),
            norm_eps=fields.number("llama.attention.layer_norm_rms_epsilon"),
            tied_output=tied_output,
        )
    except ConfigError as error:
        raise CheckpointError(f"{file}: {error}") from error
    return config, notes


def _refuse_other_models(fields: Fields) -> None:
    architecture = fields.values.get("general.architecture")
    if architecture != _ARCHITECTURE:
        raise CheckpointError(
            f"{fields.file}: general.architecture is {architecture!r}; circius implements {_ARCHITECTURE!r}, the name "
            "of Mistral 7B and the Llama models in GGUF"
        )
    if fields.has("split.count") and fields.whole("split.count") > 1:
        raise CheckpointError(
            f"{fields.file}: one of {fields.values['split.count']} pieces of a model: join them first "
            "(llama-gguf-split --merge)"
        )
    fields.refuse_unless("llama.expert_count", (0,), "a mixture of experts")
    fields.refuse_unless("llama.rope.scaling.type", ("none",), "a scaled rotation")
    fields.refuse_unless("llama.rope.scaling.factor", (0, 1), "a scaled rotation")
    fields.refuse_unless("llama.rope.scale_linear", (0, 1), "a scaled rotation")
    fields.refuse_unless("llama.tensor_data_layout", ("Meta AI original pth",), "another order of rows")
    for key in ("attention.scale", "attention.clamp_kqv", "embedding_scale", "residual_scale", "logit_scale"):
        fields.refuse_unless(f"llama.{key}", (0,), "a scale that Mistral 7B does not have")


def _head_dim(fields: Fields, n_heads: int) -> int:
    """The size of a head: stated, or an even share of the embedding; all of it must be rotated."""
    if n_heads < 1:
        raise CheckpointError(f"{fields.file}: llama.attention.head_count must be positive, got {n_heads}")
    head_dim = fields.whole("llama.embedding_length") // n_heads
    if fields.has("llama.attention.key_length"):
        head_dim = fields.whole("llama.attention.key_length")
    fields.refuse_unless("llama.attention.value_length", (head_dim,), f"values of another size than keys, {head_dim}")
    fields.refuse_unless("llama.rope.dimension_count", (head_dim,), f"a rotation of a part of each head of {head_dim}")
    return head_dim


def _n_kv_heads(fields: Fields, n_heads: int) -> int:
    key = "llama.attention.head_count_kv"
    return fields.whole(key) if fields.has(key) else n_heads  # the format's own rule for a missing key


def _vocab_size(fields: Fields, rows: int) -> int:
    if fields.has("llama.vocab_size") and fields.whole("llama.vocab_size") != rows:
        raise CheckpointError(
            f"{fields.file}: token_embd.weight has {rows} rows, but llama.vocab_size is "
            f"{fields.whole('llama.vocab_size')}"
        )
    return rows


def _window_size(fields: Fields, window: Window | Keep, notes: list[str]) -> Window:
    key = "llama.attention.sliding_window"
    if fields.has(key) and (stored := fields.whole(key)):
        return stored
    if window is KEEP:
        notes.append(
            f"{fields.file.name} stores no window, as is usual in GGUF: full attention is assumed{_hint(fields)}"
        )
    return None


def _hint(fields: Fields) -> str:
    shape = tuple(fields.values.get(f"llama.{key}") for key in ("embedding_length", "block_count", "rope.freq_base"))
    is_v01 = shape in ((4096, 32, 1e4), (4096, 32, None)) and fields.values.get("llama.attention.head_count_kv") == 8
    return "; if this is Mistral 7B v0.1, give --window 4096" if is_v01 else ""


def _rope_theta(fields: Fields, rope_theta: float | None, notes: list[str]) -> float:
    key = "llama.rope.freq_base"
    if fields.has(key):
        return fields.number(key)
    if rope_theta is None:
        notes.append(f"{fields.file.name} has no {key}: 10000, llama.cpp's default, is assumed")
    return 1e4
