"""Random models of Mistral 7B v0.1's shape as GGUF files, written as fast as the disk takes them.

Speed does not depend on what the weights are, only on how many there are and in which form, so 4-bit blocks are drawn
as random nibbles instead of being rounded from random numbers: seconds instead of many minutes for 7B. The scales make
the weights' standard deviation 0.02, that of `circius init`, so activations stay finite. Embeddings and output are
Q8_0, norms are ones, and the vocabulary is Mistral's in kind (SentencePiece with bytes), with made-up words.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from gguf.constants import GGML_QUANT_SIZES

from circius.base.config import PRESETS, ModelConfig
from circius.weights.names import expected_shapes, to_gguf

STANDARD_DEVIATION = 0.02
ROWS_AT_ONCE = 2048
Q4_0, Q8_0, F32 = (gguf.GGMLQuantizationType[name] for name in ("Q4_0", "Q8_0", "F32"))
_SPREAD = {Q4_0: 4.61, Q8_0: 73.3}  # standard deviation of a code drawn evenly from all that there are
_CONTEXT = 32_768  # more than any run here needs, so that no program warns


def shape(n_layers: int, vocab_size: int) -> ModelConfig:
    """v0.1's shape with that many layers and tokens; what the longest runs need of context is allowed."""
    return replace(PRESETS["v0.1"], n_layers=n_layers, vocab_size=vocab_size, context_len=_CONTEXT)


def write_q4_0(path: Path, config: ModelConfig, *, seed: int = 0) -> None:
    """Writes the GGUF file, under a temporary name until it is whole; memory stays below 1 GB."""
    unfinished = path.with_suffix(".unfinished")
    writer = gguf.GGUFWriter(unfinished, "llama")
    _add_model(writer, config)
    _add_vocabulary(writer, config.vocab_size)
    tensors = [(to_gguf(name), own, _kind(name, own)) for name, own in expected_shapes(config).items()]
    for name, own, kind in tensors:
        writer.add_tensor_info(name, own, np.dtype(np.float32), n_bytes(own, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    random = np.random.Generator(np.random.SFC64(seed))
    for _, own, kind in tensors:
        writer.write_tensor_data(np.concatenate(list(_blocks(own, kind, random))))
    writer.close()
    unfinished.rename(path)


def n_bytes(own: tuple[int, ...], kind: gguf.GGMLQuantizationType) -> int:
    block, block_bytes = GGML_QUANT_SIZES[kind]
    return int(np.prod(own)) // int(block) * int(block_bytes)


def _kind(name: str, own: tuple[int, ...]) -> gguf.GGMLQuantizationType:
    if len(own) == 1:
        return F32
    return Q8_0 if name in ("model.embed_tokens.weight", "lm_head.weight") else Q4_0


def _blocks(
    own: tuple[int, ...], kind: gguf.GGMLQuantizationType, random: np.random.Generator
) -> Iterator[npt.NDArray[np.uint8]]:
    """A tensor's bytes, some rows at a time: blocks of a float16 scale and 32 codes."""
    if kind == F32:
        yield np.ones(own, np.float32).view(np.uint8)
        return
    block_bytes = int(GGML_QUANT_SIZES[kind][1])
    scale = np.frombuffer(np.float16(STANDARD_DEVIATION / _SPREAD[kind]).tobytes(), np.uint8)
    for begin in range(0, own[0], ROWS_AT_ONCE):
        n_blocks = min(ROWS_AT_ONCE, own[0] - begin) * own[1] // 32
        blocks = np.frombuffer(random.bytes(n_blocks * block_bytes), np.uint8).reshape(n_blocks, block_bytes).copy()
        blocks[:, :2] = scale
        if kind == Q8_0:
            blocks[:, 2:][blocks[:, 2:] == 128] = 0  # -128 is no code that anyone writes
        yield blocks.reshape(-1)


def _add_model(writer: gguf.GGUFWriter, config: ModelConfig) -> None:
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    writer.add_quantization_version(2)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.context_len)
    writer.add_embedding_length(config.dim)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.hidden_dim)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    assert config.windows[0] is not None
    writer.add_sliding_window(config.windows[0])  # llama.cpp does not read it for this architecture; circius does


def _add_vocabulary(writer: gguf.GGUFWriter, vocab_size: int) -> None:
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    words = [f"▁w{index}" for index in range(vocab_size - 259)]
    kinds = gguf.TokenType
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(["<unk>", "<s>", "</s>", *bytes_, *words])
    writer.add_token_scores([0.0] * 259 + [-float(index) for index in range(len(words))])
    writer.add_token_types(
        [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256, *[kinds.NORMAL] * len(words)]
    )
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)
