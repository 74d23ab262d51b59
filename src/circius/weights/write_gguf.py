"""GGUF, streaming: llama.cpp's file format, as llama.cpp names and orders the weights of this architecture."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import torch
from gguf.constants import GGML_QUANT_SIZES
from torch import Tensor

from circius.base.config import ModelConfig
from circius.base.errors import ConfigError, InvalidInputError
from circius.weights.plan import PlannedTensor, common_dtype

ARCHITECTURE = "llama"
QUANTIZATIONS = ("Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0")
_PLAIN = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
_FILE_TYPES = {"F32": "ALL_F32"}  # every other type is MOSTLY_ itself
_QUANTIZATION_VERSION = 2
_OWN_PREFIXES = (f"{ARCHITECTURE}.", "general.architecture", "general.file_type", "general.quantization_version")
_UINT32_MAX = 2**32 - 1


def check_quantization(name: str, plan: Sequence[PlannedTensor]) -> str:
    """The name of a block quantisation in GGUF's spelling.

    Raises:
        InvalidInputError: there is none of this name that circius can write, or rows do not divide into its blocks.
    """
    spelled = name.upper()
    if spelled not in QUANTIZATIONS:
        raise InvalidInputError(f"cannot quantise to {name!r}: choose {', '.join(QUANTIZATIONS)}")
    block, _ = GGML_QUANT_SIZES[gguf.GGMLQuantizationType[spelled]]
    for planned in plan:
        if len(planned.shape) > 1 and planned.shape[-1] % block:
            raise InvalidInputError(
                f"{planned.hf_name} has rows of {planned.shape[-1]} values, which do not divide into {spelled}'s "
                f"blocks of {block}: choose float32, float16 or bfloat16 for this model"
            )
    return spelled


def gguf_bytes(plan: Sequence[PlannedTensor], quantization: str | None) -> int:
    """The bytes of all tensors in the file."""
    return sum(_n_bytes(planned, _type_of(planned, quantization)) for planned in plan)


def write_gguf(
    path: Path,
    config: ModelConfig,
    plan: Sequence[PlannedTensor],
    tensors: Iterator[Tensor],
    *,
    quantization: str | None = None,
    metadata: Mapping[str, object],
) -> None:
    """Writes one GGUF file; takes exactly `len(plan)` tensors, in order.

    quantization: one of QUANTIZATIONS for all matrices, which then must be float32; norms stay as they are.
    metadata: further keys, such as the tokenizer's, already checked by `check_gguf_metadata`.
    """
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    try:
        for key, value in {**_model_metadata(config, plan, quantization), **metadata}.items():
            _add(writer, key, value)
        types = [_type_of(planned, quantization) for planned in plan]
        for planned, kind in zip(plan, types, strict=True):
            writer.add_tensor_info(
                planned.name, planned.shape, np.dtype(np.float32), _n_bytes(planned, kind), raw_dtype=kind
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for planned, kind in zip(plan, types, strict=True):
            writer.write_tensor_data(_stored(next(tensors), planned, kind))
    finally:
        writer.close()


def check_gguf_metadata(config: ModelConfig, metadata: Mapping[str, object]) -> None:
    """Checks that the model and the further keys can be written.

    Raises:
        ConfigError: layers with different windows, for which GGUF has no key.
        InvalidInputError: a key that describes the weights and so is circius's to write, or a value of another kind
            than text, number, truth value, or a list of one of these.
    """
    if len(set(config.windows)) > 1:
        raise ConfigError(
            "GGUF has no key for windows that differ between layers: convert this model to the consolidated layout"
        )
    for key, value in metadata.items():
        if key.startswith(_OWN_PREFIXES):
            raise InvalidInputError(f"GGUF key {key!r} follows from the model and cannot be given")
        items = value if isinstance(value, list | tuple) else [value]
        kinds = {type(item) for item in items}
        if len(kinds) != 1 or not kinds <= {str, bytes, bool, int, float}:
            raise InvalidInputError(
                f"GGUF key {key!r} must be text, a number, a truth value, or a list of one of these that is not "
                f"empty, got {value!r:.80}"
            )


def _model_metadata(config: ModelConfig, plan: Sequence[PlannedTensor], quantization: str | None) -> dict[str, object]:
    stored_as = quantization or _PLAIN[common_dtype(plan)]
    metadata: dict[str, object] = {
        "general.file_type": int(gguf.LlamaFileType[_FILE_TYPES.get(stored_as, f"MOSTLY_{stored_as}")]),
        "llama.vocab_size": config.vocab_size,
        "llama.context_length": config.context_len,
        "llama.embedding_length": config.dim,
        "llama.block_count": config.n_layers,
        "llama.feed_forward_length": config.hidden_dim,
        "llama.attention.head_count": config.n_heads,
        "llama.attention.head_count_kv": config.n_kv_heads,
        "llama.attention.key_length": config.head_dim,
        "llama.attention.value_length": config.head_dim,
        "llama.attention.layer_norm_rms_epsilon": float(config.norm_eps),
        "llama.rope.dimension_count": config.head_dim,
        "llama.rope.freq_base": float(config.rope_theta),
    }
    if quantization is not None:
        metadata["general.quantization_version"] = _QUANTIZATION_VERSION
    if config.windows[0] is not None:
        # GGUF's own key for a window. llama.cpp does not read it for this architecture; circius does.
        metadata["llama.attention.sliding_window"] = config.windows[0]
    return metadata


def _add(writer: gguf.GGUFWriter, key: str, value: object) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        _add_int(writer, key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        assert isinstance(value, list | tuple), key
        writer.add_array(key, list(value))


def _add_int(writer: gguf.GGUFWriter, key: str, value: int) -> None:
    if 0 <= value <= _UINT32_MAX:
        writer.add_uint32(key, value)
    elif value < 0:
        writer.add_int64(key, value)
    else:
        writer.add_uint64(key, value)


def _type_of(planned: PlannedTensor, quantization: str | None) -> gguf.GGMLQuantizationType:
    is_matrix = len(planned.shape) > 1
    return gguf.GGMLQuantizationType[quantization if quantization and is_matrix else _PLAIN[planned.dtype]]


def _n_bytes(planned: PlannedTensor, kind: gguf.GGMLQuantizationType) -> int:
    block, block_bytes = GGML_QUANT_SIZES[kind]
    return math.prod(planned.shape) // int(block) * int(block_bytes)


def _stored(tensor: Tensor, planned: PlannedTensor, kind: gguf.GGMLQuantizationType) -> npt.NDArray[np.uint8]:
    assert (tuple(tensor.shape), tensor.dtype) == (planned.shape, planned.dtype), planned.name
    tensor = tensor.contiguous()
    if kind.name in QUANTIZATIONS:
        quantised: npt.NDArray[np.uint8] = gguf.quants.quantize(tensor.numpy(), kind)
        return quantised
    return tensor.reshape(-1).view(torch.uint8).numpy()
