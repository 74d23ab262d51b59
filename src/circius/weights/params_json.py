"""params.json of a consolidated checkpoint -> ModelConfig, with the rule for a missing rope_theta.

Official tools disagree about a params.json without rope_theta, such as that of Mistral 7B v0.1: mistral-inference
takes 1e6 (wrong for v0.1), mistral-finetune and transformers' converter take 1e4. Here a window or the vocabulary
of v0.1 mean 1e4, nothing else is guessed, and what was chosen is reported.
"""

from pathlib import Path
from typing import Any

from circius.base.config import ModelConfig, Window
from circius.base.errors import CheckpointError, ConfigError
from circius.weights.fields import Fields, read_json_object

_FIRST_VOCABULARY = 32_000


def read_params_json(
    file: Path, *, tied_output: bool, rope_theta: float | None = None
) -> tuple[ModelConfig, list[str]]:
    """The model's configuration, and one sentence for each thing that was assumed.

    tied_output: whether the weights lack an output matrix; params.json does not say.
    rope_theta: stands in for a missing key, which is then no reason to refuse.

    Raises:
        CheckpointError: the file is missing or no JSON, a field is missing or wrong, rope_theta cannot be told, or
            the model is of a kind that circius does not implement.
    """
    fields = Fields(file, read_json_object(file))
    _refuse_other_models(fields)
    notes: list[str] = []
    n_layers = fields.n_layers("n_layers")
    window_size = _window_size(fields, n_layers, notes)
    theta = _rope_theta(fields, window_size, rope_theta, notes)
    try:
        config = ModelConfig(
            **{
                name: fields.whole(name)
                for name in ("dim", "head_dim", "hidden_dim", "n_heads", "n_kv_heads", "vocab_size")
            },
            n_layers=n_layers,
            context_len=_context_len(fields, window_size, theta, notes),
            window_size=window_size,
            rope_theta=theta,
            norm_eps=fields.number("norm_eps"),
            tied_output=tied_output,
        )
    except ConfigError as error:
        raise CheckpointError(f"{file}: {error}") from error
    return config, notes


def _refuse_other_models(fields: Fields) -> None:
    fields.refuse_unless("model_type", ("transformer",), "another kind of model")
    fields.refuse_unless("moe", (), "a mixture of experts")
    fields.refuse_unless("lora", (), "an adapter instead of a whole model")
    fields.refuse_unless("vision_encoder", (), "a model that sees images")
    fields.refuse_unless("quantization", (), "weights that were quantised outside of GGUF")
    for name in ("yarn", "rope_scaling", "llama_4_scaling", "attn_qk_norm"):
        fields.refuse_unless(name, (False,), "another attention or rotation than Mistral 7B's")


def _rope_theta(
    fields: Fields, window_size: Window | tuple[Window, ...], given: float | None, notes: list[str]
) -> float:
    if fields.has("rope_theta"):
        return fields.number("rope_theta")
    if given is not None:
        return given
    if window_size is not None:
        sign = "it has a sliding_window, like Mistral 7B v0.1"
    elif fields.whole("vocab_size") == _FIRST_VOCABULARY:
        sign = "its vocabulary has 32000 entries, like that of Mistral 7B v0.1, and v0.2 names its rope_theta"
    else:
        raise CheckpointError(
            f"{fields.file}: rope_theta is missing, and neither a sliding_window nor a vocabulary of 32000 tells it: "
            "give rope_theta (10000 for Mistral 7B v0.1, 1000000 for v0.2 and v0.3)"
        )
    notes.append(f"{fields.file.name} has no rope_theta: 10000 is assumed, because {sign}")
    return 1e4


def _context_len(fields: Fields, window_size: Window | tuple[Window, ...], theta: float, notes: list[str]) -> int:
    if fields.has("max_seq_len"):
        return fields.whole("max_seq_len")
    if window_size is not None:
        length, sign = 8_192, "as in the paper's Table 1, because it has a sliding_window"
    elif theta >= 1e6:
        length, sign = 32_768, "as in Mistral 7B v0.2 and v0.3, because rope_theta is 1000000 or more"
    else:
        length, sign = 8_192, "the shortest of the Mistral 7B family"
    notes.append(f"{fields.file.name} does not say the context length: {length} is assumed, {sign}")
    return length


def _window_size(fields: Fields, n_layers: int, notes: list[str]) -> Window | tuple[Window, ...]:
    """The window from `sliding_window`, or from `_sliding_window`.

    The second name hides the window from other loaders, while mistral-inference honours it all the same.
    """
    name = "sliding_window"
    if not fields.has(name) and fields.has("_sliding_window"):
        name = "_sliding_window"
        notes.append(f"the window is taken from _sliding_window of {fields.file.name}, which has no sliding_window")
    value = fields.values.get(name)
    if not isinstance(value, list):
        return _window(fields, name, value)
    if not value or n_layers % len(value):
        raise CheckpointError(
            f"{fields.file}: {name} has {len(value)} entries, which cannot be repeated over {n_layers} layers"
        )
    windows = tuple(_window(fields, name, entry) for entry in value) * (n_layers // len(value))
    return windows[0] if len(set(windows)) == 1 else windows


def _window(fields: Fields, name: str, value: Any) -> Window:
    """One window; older exports wrote the number as a string."""
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise CheckpointError(f"{fields.file}: {name} must be a positive whole number or null, got {value!r}")
