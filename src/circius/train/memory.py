"""How much memory a run takes, worked out from the shape of its model; tests/unit/train/test_plan.py measures it."""

from math import prod

import torch

from circius.base.config import ModelConfig
from circius.kernels.precision import multiplies_fast
from circius.model.adapter import AdapterConfig
from circius.train.config import RunConfig
from circius.train.loss import rows_at_once
from circius.weights.names import EMBEDDING, OUTPUT, expected_shapes

_NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)
_INT4_BITS, _INT8_BITS = 4 + 16 / 32, 8 + 16 / 32
_WIDE = 4


def adapter_size(shape: ModelConfig, adapter: AdapterConfig) -> int:
    """The parameters of an adapter.

    >>> from circius.base.config import PRESETS
    >>> adapter_size(PRESETS["v0.1"], AdapterConfig(rank=64, alpha=128))
    167772160
    """
    sides = (sum(size) for name, size in expected_shapes(shape).items() if name.split(".")[-2] in adapter.targets)
    return adapter.rank * sum(sides)


def memory_parts(shape: ModelConfig, config: RunConfig, *, n_data: int = 1, device: str = "cpu") -> dict[str, int]:
    """The bytes of one process, by what they are for.

    n_data: processes that share out the batches; with `parallel.sharing` "shards" the weights and all that belongs to
    them too. device: "cpu" or "cuda".
    """
    adapter = 0 if config.lora is None else adapter_size(shape, config.lora)
    trained = adapter or shape.n_parameters
    is_narrow = config.dtype == "bfloat16" and config.lora is None
    parts = {
        "weights": _weight_bytes(shape, config) + _WIDE * adapter,
        "float32 copies": _WIDE * trained if is_narrow else 0,
        "gradients": _WIDE * trained,
        "optimiser": _moments(shape, config, trained),
    }
    n = config.parallel.tensor * (n_data if config.parallel.sharing == "shards" else 1)
    parts = {name: -(-n_bytes // n) for name, n_bytes in parts.items()}
    parts["activations"] = activation_bytes(shape, config, device=device) // config.parallel.tensor
    parts["logits"] = _logit_bytes(shape, config, device)
    return parts


def activation_bytes(shape: ModelConfig, config: RunConfig, *, device: str = "cpu") -> int:
    """What is kept of a micro-batch's forward for the way back."""
    size = 2 if config.dtype == "bfloat16" and config.quantize != "int4" else _WIDE
    stream = size * shape.dim
    # A layer keeps what its two norms take and give, gate and up, and what attention makes of them.
    layer = 4 * stream + 2 * size * shape.hidden_dim + _attention_bytes(shape, size, device)
    if config.lora is not None:
        layer += size * config.lora.rank * len(config.lora.targets)
        layer += size * shape.hidden_dim if "down_proj" in config.lora.targets else 0
    outer = 3 * stream  # what the last norm takes and gives, and the gradient of that
    layers = shape.n_layers * stream + layer if config.recompute else shape.n_layers * layer
    return config.batch_tokens * (layers + outer)


def _attention_bytes(shape: ModelConfig, size: int, device: str) -> int:
    """Of a token in a layer: queries, keys, values, what was mixed, and the scores' sums; in float32, and what was
    mixed rounded too, where the processor is slow in fewer bits."""
    heads, kv_heads = shape.n_heads * shape.head_dim, shape.n_kv_heads * shape.head_dim
    is_slow = size != _WIDE and not multiplies_fast(torch.bfloat16, torch.device(device))
    mixed = (2 * heads + 2 * kv_heads) * (_WIDE if is_slow else size)
    return mixed + (size * heads if is_slow else 0) + _WIDE * shape.n_heads


def _weight_bytes(shape: ModelConfig, config: RunConfig) -> int:
    size = 2 if config.dtype == "bfloat16" else _WIDE
    n_bytes = 0.0
    for name, axes in expected_shapes(shape).items():
        if len(axes) == 1 or config.quantize is None:
            bits = 8.0 * (_WIDE if config.quantize == "int4" else size)
        elif name in (EMBEDDING, OUTPUT):
            bits = _INT8_BITS if config.quantize == "int4" else 8.0 * size
        else:
            bits = _INT4_BITS if config.quantize == "int4" else _NF4_BITS
        n_bytes += prod(axes) * bits / 8
    return round(n_bytes)


def _moments(shape: ModelConfig, config: RunConfig, trained: int) -> int:
    """What the optimiser remembers of each trained number: two of them, or one of Muon's, or two in eight bits."""
    if config.optimizer.kind == "adamw8bit":
        return 2 * trained
    if config.optimizer.kind == "muon" and config.lora is None:
        sizes = expected_shapes(shape).items()
        by_muon = sum(prod(axes) for name, axes in sizes if len(axes) == 2 and ".layers." in name)
        return 2 * _WIDE * trained - _WIDE * by_muon
    return 2 * _WIDE * trained


def _logit_bytes(shape: ModelConfig, config: RunConfig, device: str) -> int:
    """A slice of logits and its gradient, and the head's gradient where that is trained."""
    numbers = min(rows_at_once(shape.vocab_size, device), config.batch_tokens) * shape.vocab_size
    head = shape.vocab_size * shape.dim if config.lora is None else 0
    return _WIDE * (2 * numbers + head)
