"""GGUF's quantised weights in our kernels' order: the `gguf` package's own values, and the demo model's own text."""

import math
from functools import partial
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from circius.base.config import ModelConfig
from circius.engine.llm import LLM
from circius.kernels import native
from circius.text import load_tokenizer
from circius.weights import load_model, open_checkpoint
from circius.weights.names import interleaved_to_half, rotary_heads, to_gguf
from tests.unit.weights.files import random_state, write_gguf

WIDE = ModelConfig(  # rows of 256 values, which the K-quants' blocks need; a vocabulary that fills no whole tile
    dim=256, n_layers=1, head_dim=64, hidden_dim=512, n_heads=4, n_kv_heads=2, vocab_size=61, context_len=64
)
MATRICES = [to_gguf(name) for name, value in random_state(WIDE).items() if value.ndim == 2]
LICENCE = Path(__file__).parents[2] / "LICENSE"
TEXT = "The mistral is a strong, cold wind that blows from the north-west down the valley of the Rhône. " * 3

needs_native = pytest.mark.skipif(not native.available(), reason="needs the native library")


@needs_native
@pytest.mark.parametrize("kind", [Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q8_0], ids=lambda kind: kind.name)
def test_values_are_those_of_the_package_to_the_last_bit(tmp_path: Path, kind: Kind) -> None:
    file = write_gguf(tmp_path / "m.gguf", WIDE, random_state(WIDE), kinds=dict.fromkeys(MATRICES, kind))
    checkpoint = open_checkpoint(file)
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    n_packed = 0
    for name in checkpoint.names():
        stored = theirs[to_gguf(name)]
        packed = checkpoint.read_packed(name)
        if len(stored.shape) == 1:
            assert packed is None
            continue
        assert packed is not None
        expected = torch.from_numpy(gguf.dequantize(stored.data, stored.tensor_type).copy())
        if heads := rotary_heads(name, WIDE):
            expected = interleaved_to_half(expected, heads)
        assert torch.equal(packed.matrix.unpack(), expected), name
        assert packed.squared_error == 0
        assert packed.matrix.bits == (4 if kind in (Kind.Q4_0, Kind.Q4_1) else 8)
        n_packed += 1
    assert n_packed == len(MATRICES)


@needs_native
@pytest.mark.parametrize(
    ("kind", "bits", "most"),
    [
        (Kind.Q4_K, 4, 0.0005),
        (Kind.Q5_1, 8, 0.008),
        (Kind.Q5_K, 8, 0.008),
        (Kind.Q6_K, 8, 0.008),
    ],
)
def test_what_is_rounded_is_near_and_its_error_is_the_one_told(
    tmp_path: Path, kind: Kind, bits: int, most: float
) -> None:
    file = write_gguf(tmp_path / "m.gguf", WIDE, random_state(WIDE), kinds=dict.fromkeys(MATRICES, kind))
    checkpoint = open_checkpoint(file)
    for name in ("model.layers.0.mlp.down_proj.weight", "model.layers.0.self_attn.k_proj.weight"):
        packed, exact = checkpoint.read_packed(name), checkpoint.read(name)
        assert packed is not None
        assert packed.matrix.bits == bits
        error = float((packed.matrix.unpack() - exact).norm() / exact.norm())
        assert 0 < error < most
        # Q4_K's is measured on a part of the rows.
        assert math.sqrt(packed.squared_error / packed.squared_norm) == pytest.approx(error, rel=0.2)


@needs_native
def test_the_note_sums_up_what_was_rounded(tmp_path: Path) -> None:
    kinds = dict.fromkeys(MATRICES, Kind.Q4_0) | {"blk.0.ffn_down.weight": Kind.Q6_K, "blk.0.ffn_up.weight": Kind.Q4_K}
    file, notes = write_gguf(tmp_path / "m.gguf", WIDE, random_state(WIDE), kinds=kinds), list[str]()
    model = load_model(open_checkpoint(file, window=None), on_note=notes.append)
    assert model.is_packed
    assert "quantised weights (Q4_0, Q4_K, Q6_K) are used as they are, activations rounded to 8 bits" in notes[0]
    assert notes[1].startswith("2 matrices do not fit the kernels' layout exactly and were rounded once more")
    assert "relative error (rms) 0.0" in notes[1]
    assert "% in Q4_K, 0." in notes[1]
    assert len(notes) == 2


@needs_native
def test_a_code_or_a_scale_that_the_layout_cannot_hold_leaves_the_matrix_plain(tmp_path: Path) -> None:
    """Nobody writes -128, but a file may hold it; a scale that is not finite is for the check of values to find."""
    state = random_state(WIDE)
    file = write_gguf(tmp_path / "m.gguf", WIDE, state, kinds=dict.fromkeys(MATRICES, Kind.Q8_0))
    checkpoint = open_checkpoint(file)
    name = "model.layers.0.mlp.down_proj.weight"
    stored = checkpoint.tensors[name]
    content = bytearray(file.read_bytes())
    offset = stored.offset  # type: ignore[attr-defined]
    for at, value in ((2, np.int8(-128)), (0, np.float16("inf"))):
        changed = bytearray(content)
        changed[offset + at : offset + at + value.nbytes] = value.tobytes()
        (tmp_path / "changed.gguf").write_bytes(changed)
        again = open_checkpoint(tmp_path / "changed.gguf")
        assert again.read_packed(name) is None
        assert again.read_packed("model.layers.0.mlp.up_proj.weight") is not None


@needs_native
def test_a_matrix_of_floats_among_packed_ones_stays_one(tmp_path: Path) -> None:
    state = random_state(WIDE)
    kinds = dict.fromkeys(MATRICES, Kind.Q8_0) | {"output.weight": Kind.F16, "blk.0.attn_q.weight": Kind.BF16}
    file = write_gguf(tmp_path / "m.gguf", WIDE, state, kinds=kinds)
    model = load_model(open_checkpoint(file, window=None), activations="float")
    dense = load_model(open_checkpoint(file, window=None), dtype=torch.float32)
    assert model.is_packed
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    tokens = torch.arange(20)
    with torch.inference_mode():
        torch.testing.assert_close(model(tokens, [20]), dense(tokens, [20]), atol=1e-3, rtol=0)


@needs_native
def test_the_demo_model_packed_is_the_demo_model(demo_gguf: Path) -> None:
    tokens = torch.tensor(load_tokenizer(demo_gguf).encode(TEXT))
    dense, packed = load_model(demo_gguf, dtype=torch.float32), load_model(demo_gguf, activations="float")
    assert packed.is_packed
    with torch.inference_mode():
        expected = dense(tokens, [len(tokens)])
        torch.testing.assert_close(packed(tokens, [len(tokens)]), expected, atol=1e-3, rtol=0)
        packed.set_activations("int8")
        ours = packed(tokens, [len(tokens)])
    assert not torch.equal(ours, expected)
    agreement = (ours.argmax(-1) == expected.argmax(-1)).float().mean()
    assert agreement > 0.9


@needs_native
def test_activations_of_8_bits_hardly_change_the_perplexity(demo_gguf: Path) -> None:
    open_llm = partial(LLM, demo_gguf, device="cpu", context=512)
    exact, rounded = (open_llm(activations=name).score(LICENCE).mean_nll for name in ("float", "int8"))
    print(f"perplexity {math.exp(exact):.4f} in float32, {math.exp(rounded):.4f} with activations of 8 bits")
    assert abs(rounded - exact) < 0.02
