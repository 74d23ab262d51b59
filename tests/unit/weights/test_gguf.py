"""GGUF files written by the `gguf` package: floats, every quantised kind, metadata, and what is refused."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from circius.base.config import PRESETS, ModelConfig
from circius.base.errors import CheckpointError
from circius.base.gguf_header import read_gguf_header
from circius.weights import KEEP, open_checkpoint
from circius.weights.gguf import QuantisedTensor
from circius.weights.gguf_config import read_gguf_config
from circius.weights.names import interleaved_to_half, rotary_heads, to_gguf
from tests.models import tiny_config
from tests.unit.weights.files import random_state, write_gguf
from tests.unit.weights.test_hf import assert_holds

WIDE = ModelConfig(  # rows of 256 values, which the K-quants' blocks need
    dim=256, n_layers=1, head_dim=64, hidden_dim=512, n_heads=4, n_kv_heads=2, vocab_size=61, context_len=64
)
MATRICES = [to_gguf(name) for name, shape in ((n, v.shape) for n, v in random_state(WIDE).items()) if len(shape) == 2]


@pytest.mark.parametrize("tied", [False, True])
def test_reads_floats_in_our_row_order(tmp_path: Path, tied: bool) -> None:
    config = tiny_config(tied=tied, window=None)
    state = random_state(config)
    checkpoint = open_checkpoint(write_gguf(tmp_path / "m.gguf", config, state))
    assert_holds(checkpoint, state)
    assert checkpoint.config.tied_output == tied
    assert checkpoint.config.norm_eps == pytest.approx(1e-5)  # stored as a 32-bit float
    assert (checkpoint.config.windows, checkpoint.config.context_len) == ((None, None), 64)
    assert (checkpoint.format, checkpoint.dtype) == ("gguf", torch.float32)


@pytest.mark.parametrize(("kind", "dtype"), [(Kind.F16, torch.float16), (Kind.BF16, torch.bfloat16)])
def test_reads_half_floats_in_place(tmp_path: Path, kind: Kind, dtype: torch.dtype) -> None:
    state = random_state(WIDE, dtype)
    kinds = dict.fromkeys(MATRICES, kind)
    checkpoint = open_checkpoint(write_gguf(tmp_path / "m.gguf", WIDE, state, kinds=kinds))
    assert checkpoint.dtype == dtype
    assert not checkpoint.is_quantised
    for name, value in state.items():
        found = checkpoint.read(name)
        assert torch.equal(found, value.to(found.dtype)), name
    for name in ("model.norm.weight", "lm_head.weight"):
        assert checkpoint.tensors[name].view().untyped_storage().nbytes() >= checkpoint.tensors[name].n_bytes


QUANTISED = [Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K]


@pytest.mark.parametrize("kind", QUANTISED, ids=lambda kind: kind.name)
def test_dequantises_as_the_package_does(tmp_path: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circius.weights.gguf._VALUES_AT_ONCE", 3 * 4096)  # several pieces a matrix
    state = random_state(WIDE)
    file = write_gguf(tmp_path / "m.gguf", WIDE, state, kinds=dict.fromkeys(MATRICES, kind))
    checkpoint = open_checkpoint(file)
    assert (checkpoint.dtype, checkpoint.is_quantised) == (torch.float32, True)
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    for name in checkpoint.names():
        stored = theirs[to_gguf(name)]
        expected = torch.from_numpy(gguf.dequantize(stored.data, stored.tensor_type).copy())
        if heads := rotary_heads(name, WIDE):
            expected = interleaved_to_half(expected, heads)
        found = checkpoint.read(name)
        assert found.dtype == torch.float32
        assert torch.equal(found, expected), name
        assert torch.equal(checkpoint.read(name, dtype=torch.bfloat16), expected.bfloat16())
        assert checkpoint.tensors[name].n_bytes == stored.n_bytes


def test_quantised_values_are_near_what_was_stored(tmp_path: Path) -> None:
    state = random_state(WIDE)
    kinds = dict.fromkeys(MATRICES, Kind.Q8_0)
    checkpoint = open_checkpoint(write_gguf(tmp_path / "m.gguf", WIDE, state, kinds=kinds))
    for name, value in state.items():
        torch.testing.assert_close(checkpoint.read(name), value, atol=3e-3, rtol=0)


def test_the_header_equals_that_of_the_package(tmp_path: Path) -> None:
    extra = {"tokenizer.chat_template": "{{ x }} é", "llama.expert_count": 0}
    kinds = dict.fromkeys(MATRICES, Kind.Q4_1)
    file = write_gguf(tmp_path / "m.gguf", WIDE, random_state(WIDE), kinds=kinds, extra=extra)
    theirs, ours = gguf.GGUFReader(file), read_gguf_header(file)
    told = {key: value.contents() for key, value in theirs.fields.items() if not key.startswith("GGUF.")}
    epsilon = "llama.attention.layer_norm_rms_epsilon"
    assert told[epsilon] == np.float32(ours.metadata[epsilon])
    assert ours.metadata[epsilon] == 1e-5  # as written, not as float32 keeps it
    assert ours.metadata == told | {epsilon: 1e-5}
    assert ours.metadata["tokenizer.ggml.tokens"][60] == "piece 60"
    assert (ours.start, ours.alignment) == (theirs.data_offset, theirs.alignment)
    assert [(t.name, t.kind, ours.start + t.offset) for t in ours.tensors] == [
        (t.name, t.tensor_type, t.data_offset) for t in theirs.tensors
    ]
    assert [t.shape for t in ours.tensors] == [tuple(reversed(t.shape.tolist())) for t in theirs.tensors]


def test_metadata_of_every_type(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    values: dict[str, Any] = {
        "uint8": 200,
        "int8": -3,
        "uint16": 60_000,
        "int16": -30_000,
        "uint32": 2**32 - 1,
        "int32": -(2**31),
        "uint64": 2**64 - 1,
        "int64": -(2**63),
        "float32": 0.5,
        "float64": 0.1,
        "bool": True,
        "string": "ça",
    }
    for kind, value in values.items():
        getattr(writer, f"add_{kind}")(kind, value)
    writer.add_array("numbers", [1, -2, 3])
    writer.add_array("fractions", [0.5, 0.25])
    writer.add_array("words", ["a", "", "ß"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    metadata = read_gguf_header(tmp_path / "m.gguf").metadata
    lists = {"numbers": [1, -2, 3], "fractions": [0.5, 0.25], "words": ["a", "", "ß"]}
    assert metadata == {"general.architecture": "llama"} | values | lists


def test_the_missing_window_is_told_unless_it_is_given(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "m.gguf", WIDE, random_state(WIDE))
    assert "full attention is assumed" in open_checkpoint(file).notes[0]
    assert "--window 4096" not in open_checkpoint(file).notes[0]
    checkpoint = open_checkpoint(file, window=8)
    assert checkpoint.config.window_size == 8
    assert checkpoint.notes == ("window_size is 8 as asked, instead of None",)
    assert open_checkpoint(file, window=None).notes == ()
    stored = write_gguf(tmp_path / "w.gguf", WIDE, random_state(WIDE), extra={"llama.attention.sliding_window": 6})
    assert open_checkpoint(stored).config.window_size == 6


def test_a_file_of_the_shape_of_v01_is_told_which_window_it_may_need(tmp_path: Path) -> None:
    metadata = {
        "general.architecture": "llama",
        "llama.embedding_length": 4096,
        "llama.block_count": 32,
        "llama.feed_forward_length": 14336,
        "llama.attention.head_count": 32,
        "llama.attention.head_count_kv": 8,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.context_length": 32768,
        "llama.rope.freq_base": 1e4,
    }
    read = partial(read_gguf_config, tmp_path / "m.gguf", vocab_size=32000, tied_output=False, rope_theta=None)
    config, notes = read(metadata, window=KEEP)
    assert config == replace(PRESETS["v0.1"], window_size=None, context_len=32768)
    assert "give --window 4096" in notes[0]
    assert read(metadata, window=4096)[1] == []
    _, later = read(metadata | {"llama.rope.freq_base": 1e6}, window=KEEP)
    assert "--window" not in later[0]


def test_heads_of_their_own_size(tmp_path: Path) -> None:
    config = ModelConfig(
        dim=32, n_layers=1, head_dim=16, hidden_dim=32, n_heads=4, n_kv_heads=2, vocab_size=9, context_len=8
    )
    state = random_state(config)
    checkpoint = open_checkpoint(write_gguf(tmp_path / "m.gguf", config, state))
    assert checkpoint.config.head_dim == 16
    assert_holds(checkpoint, state)


def test_unknown_keys_are_told(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "m.gguf", WIDE, random_state(WIDE), extra={"llama.new_trick": 1})
    assert any("llama.new_trick" in note and "not used" in note for note in open_checkpoint(file).notes)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"llama.expert_count": 8}, "llama.expert_count is 8"),
        ({"llama.rope.scaling.type": "yarn"}, 'llama.rope.scaling.type is "yarn"'),
        ({"llama.rope.scale_linear": 2}, "llama.rope.scale_linear is 2"),
        ({"llama.attention.key_length": 32}, "llama.rope.dimension_count is 64"),
        ({"llama.attention.value_length": 32}, "llama.attention.value_length is 32"),
        ({"llama.logit_scale": 2}, "llama.logit_scale is 2"),
        ({"split.count": 3}, "one of 3 pieces"),
    ],
)
def test_other_models_are_refused_by_key(tmp_path: Path, extra: dict[str, Any], message: str) -> None:
    file = write_gguf(tmp_path / "m.gguf", WIDE, random_state(WIDE), extra=extra)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(file)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)


def test_other_architectures_are_refused(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "m.gguf", WIDE, random_state(WIDE), architecture="mistral3")
    with pytest.raises(CheckpointError, match=r"general\.architecture is 'mistral3'"):
        open_checkpoint(file)


def test_scaled_rotations_are_refused(tmp_path: Path) -> None:
    state = random_state(WIDE) | {"rope_freqs.weight": torch.ones(32)}
    file = write_gguf(tmp_path / "m.gguf", WIDE, state)
    with pytest.raises(CheckpointError, match=r"rope_freqs\.weight of shape \(32,\) scales the rotation"):
        open_checkpoint(file)


def test_biases_are_refused_by_name(tmp_path: Path) -> None:
    state = random_state(WIDE) | {"blk.0.attn_q.bias": torch.ones(256)}
    with pytest.raises(CheckpointError, match=r"blk\.0\.attn_q\.bias of shape \(256,\) has no place"):
        open_checkpoint(write_gguf(tmp_path / "m.gguf", WIDE, state))


@pytest.mark.parametrize("kind", [Kind.TQ1_0, Kind.MXFP4])
def test_other_kinds_are_refused_by_tensor_and_kind(tmp_path: Path, kind: Kind) -> None:
    file = write_gguf(tmp_path / "m.gguf", WIDE, random_state(WIDE), kinds={"blk.0.ffn_up.weight": kind})
    with pytest.raises(CheckpointError, match=rf"blk\.0\.ffn_up\.weight is stored as {kind.name}; circius reads F32"):
        open_checkpoint(file)


def test_memory_of_a_large_matrix_is_bounded(tmp_path: Path) -> None:
    """A matrix of many pieces, of which none divides the rows evenly, still comes whole."""
    values = np.random.default_rng(0).normal(size=(37, 96)).astype(np.float32)
    blocks = gguf.quants.quantize(values, Kind.Q8_0)
    file = tmp_path / "blocks"
    file.write_bytes(b"\0" * 5 + blocks.tobytes())
    tensor = QuantisedTensor(file=file, name="x", shape=(37, 96), kind=int(Kind.Q8_0), offset=5, n_bytes=blocks.nbytes)
    assert torch.equal(tensor.copy(), torch.from_numpy(gguf.dequantize(blocks, Kind.Q8_0)))
