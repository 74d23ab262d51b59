"""Consolidated folders, and the rules for what params.json leaves out."""

from pathlib import Path
from typing import Any

import pytest
import torch

from circius.base.config import PRESETS, ModelConfig
from circius.base.errors import CheckpointError
from circius.weights import open_checkpoint
from circius.weights.params_json import read_params_json
from tests.models import tiny_config
from tests.unit.weights.files import params_json, random_state, write_consolidated, write_hf, write_json
from tests.unit.weights.test_hf import assert_holds

FILES = ("consolidated.safetensors", "consolidated.00.safetensors", "consolidated.00.pth")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("tied", [False, True])
def test_reads_all_kinds_in_our_row_order(tmp_path: Path, file: str, tied: bool) -> None:
    config = tiny_config(tied=tied)
    state = random_state(config, torch.bfloat16)
    checkpoint = open_checkpoint(write_consolidated(tmp_path, config, state, file=file))
    assert checkpoint.config == config
    assert (checkpoint.format, checkpoint.dtype) == ("consolidated", torch.bfloat16)
    assert_holds(checkpoint, state)
    assert any("tied" in note for note in checkpoint.notes) == tied
    name = "model.layers.1.self_attn.k_proj.weight"
    assert torch.equal(checkpoint.read(name, dtype=torch.float32), state[name].float())


def test_a_folder_with_both_layouts_is_read_as_hugging_face(tmp_path: Path) -> None:
    config = tiny_config()
    state = random_state(config)
    write_hf(tmp_path, config, state)
    write_consolidated(tmp_path, config, {name: value + 1 for name, value in state.items()})
    assert_holds(open_checkpoint(tmp_path), state)
    (tmp_path / "model.safetensors").unlink()
    assert open_checkpoint(tmp_path).format == "consolidated"


def test_weights_cut_into_parts_are_refused(tmp_path: Path) -> None:
    write_consolidated(tmp_path, tiny_config(), random_state(tiny_config()), file="consolidated.00.pth")
    (tmp_path / "consolidated.01.pth").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"cut into several consolidated files \(consolidated\.01\.pth"):
        open_checkpoint(tmp_path)


def test_hugging_face_names_in_a_consolidated_file_are_refused(tmp_path: Path) -> None:
    state = random_state(tiny_config())
    write_json(tmp_path / "params.json", params_json(tiny_config()))
    torch.save(state, tmp_path / "consolidated.00.pth")
    with pytest.raises(CheckpointError, match=r"tok_embeddings\.weight of shape \(61, 32\) is missing"):
        open_checkpoint(tmp_path)


def read(tmp_path: Path, **changes: Any) -> tuple[ModelConfig, list[str]]:
    file = write_json(tmp_path / "params.json", params_json(tiny_config(), **changes))
    return read_params_json(file, tied_output=False)


def test_the_official_v01_params_give_theta_1e4(tmp_path: Path) -> None:
    """The keys of Mistral 7B v0.1's own file: no rope_theta, and current mistral-inference then takes 1e6."""
    official = {
        "dim": 4096,
        "n_layers": 32,
        "head_dim": 128,
        "hidden_dim": 14336,
        "n_heads": 32,
        "n_kv_heads": 8,
        "norm_eps": 1e-05,
        "sliding_window": 4096,
        "vocab_size": 32000,
    }
    config, notes = read_params_json(write_json(tmp_path / "params.json", official), tied_output=False)
    assert config == PRESETS["v0.1"]
    assert any("no rope_theta: 10000 is assumed, because it has a sliding_window" in note for note in notes)
    assert any("8192" in note for note in notes)
    del official["sliding_window"]
    v2 = official | {"rope_theta": 1e6}
    config, notes = read_params_json(write_json(tmp_path / "params.json", v2), tied_output=False)
    assert config == PRESETS["v0.2"]
    assert len(notes) == 1
    v3 = v2 | {"vocab_size": 32768}
    config, notes = read_params_json(write_json(tmp_path / "params.json", v3), tied_output=False)
    assert config == PRESETS["v0.3"]


def test_the_vocabulary_of_v01_is_a_sign_too(tmp_path: Path) -> None:
    config, notes = read(tmp_path, sliding_window=None, vocab_size=32_000, rope_theta="absent")
    assert config.rope_theta == 1e4
    assert any("its vocabulary has 32000 entries" in note for note in notes)


def test_without_a_sign_theta_is_asked_for(tmp_path: Path) -> None:
    changes = {"sliding_window": None, "rope_theta": "absent"}
    file = write_json(tmp_path / "params.json", params_json(tiny_config(), **changes))
    with pytest.raises(CheckpointError, match="give rope_theta"):
        read_params_json(file, tied_output=False)
    config, _ = read_params_json(file, tied_output=False, rope_theta=1e6)
    assert config.rope_theta == 1e6


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (None, None),
        (7, 7),
        ("7", 7),
        ([7], 7),
        ([None], None),
        ([7, None], (7, None)),
        (["7", 9], (7, 9)),
        ("absent", None),
    ],
)
def test_windows_in_every_spelling(tmp_path: Path, stored: object, expected: object) -> None:
    assert read(tmp_path, sliding_window=stored)[0].window_size == expected


def test_a_list_of_windows_is_repeated_over_the_layers(tmp_path: Path) -> None:
    config, _ = read(tmp_path, n_layers=6, sliding_window=[None, 4, 4])
    assert config.windows == (None, 4, 4, None, 4, 4)


def test_a_window_hidden_from_other_loaders_counts_and_is_told(tmp_path: Path) -> None:
    config, notes = read(tmp_path, sliding_window="absent", _sliding_window=7)
    assert config.window_size == 7
    assert any("_sliding_window" in note for note in notes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"moe": {"num_experts": 8, "num_experts_per_tok": 2}}, "moe is"),
        ({"model_type": "mamba"}, 'model_type is "mamba"'),
        ({"vision_encoder": {"hidden_size": 3}}, "vision_encoder is"),
        ({"lora": {"rank": 8, "scaling": 2.0}}, "lora is"),
        ({"yarn": {"factor": 4}}, "yarn is"),
        ({"sliding_window": [1, 2, 3]}, "3 entries, which cannot be repeated over 2 layers"),
        ({"sliding_window": []}, "0 entries"),
        ({"sliding_window": "wide"}, "sliding_window must be a positive whole number or null, got 'wide'"),
        ({"sliding_window": 0}, "sliding_window must be a positive whole number"),
        ({"sliding_window": [True, 3]}, "got True"),
        ({"dim": "absent"}, "the field 'dim' is missing"),
        ({"norm_eps": "absent"}, "the field 'norm_eps' is missing"),
        ({"n_layers": 0}, "n_layers must be from 1"),
        ({"rope_theta": "big"}, "rope_theta must be a number"),
        ({"head_dim": 7}, "head_dim must be even"),
    ],
)
def test_what_is_not_implemented_or_wrong_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path, **changes)
    assert message in str(caught.value)
    assert str(tmp_path / "params.json") in str(caught.value)
