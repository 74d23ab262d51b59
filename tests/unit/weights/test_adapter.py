"""Adapters on disk: what is written is read, PEFT's and Mistral's forms, and everything that cannot be honoured."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from circius.base.errors import CheckpointError, InvalidInputError, StorageError
from circius.model.adapter import AdapterConfig
from circius.weights.adapter import check_adapter, read_adapter, write_adapter
from circius.weights.names import half_to_interleaved, rotary_heads, to_consolidated
from tests.adapters import random_adapter
from tests.models import tiny_config

CONFIG = tiny_config()


def _same(one: object, two: object) -> bool:
    parts, others = one.parts, two.parts  # type: ignore[attr-defined]
    return parts.keys() == others.keys() and all(
        torch.equal(a, b) for name in parts for a, b in zip(parts[name], others[name], strict=True)
    )


def _changed(folder: Path, **settings: object) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_adapter(tmp_path / "adapter", random_adapter(CONFIG))
    return tmp_path / "adapter"


@pytest.mark.parametrize("rslora", [False, True])
def test_what_is_written_is_read(tmp_path: Path, *, rslora: bool) -> None:
    adapter = random_adapter(CONFIG, targets=("v_proj", "down_proj"))
    config = AdapterConfig(
        rank=3, alpha=5.5, targets=("v_proj", "down_proj"), uses_rslora=rslora, dropout=0.1, base_model="some/model"
    )
    written = type(adapter)(config, adapter.parts)
    write_adapter(tmp_path / "a", written)
    found = read_adapter(tmp_path / "a", CONFIG)
    assert found.config == config
    assert _same(found, written)
    with pytest.raises(StorageError):
        write_adapter(tmp_path / "a", written)
    write_adapter(tmp_path / "a", random_adapter(CONFIG, seed=5), overwrite=True)
    assert not _same(read_adapter(tmp_path / "a", CONFIG), written)


def test_mistrals_own_form_is_read_with_its_row_order(tmp_path: Path) -> None:
    adapter = random_adapter(CONFIG, alpha=6)
    tensors = {}
    for name, (down, up) in adapter.parts.items():
        n_heads = rotary_heads(f"{name}.weight", CONFIG)
        own = to_consolidated(f"{name}.weight").removesuffix(".weight")
        tensors[f"{own}.lora_A.weight"] = down
        tensors[f"{own}.lora_B.weight"] = up if n_heads is None else half_to_interleaved(up, n_heads).contiguous()
    save_file(tensors, tmp_path / "lora.safetensors")
    (tmp_path / "params.json").write_text(json.dumps({"dim": 32, "lora": {"rank": 3, "scaling": 2.0}}))
    found = read_adapter(tmp_path, CONFIG)
    assert found.config.scale == 2.0
    assert _same(found, adapter)
    (tmp_path / "params.json").write_text(json.dumps({"dim": 32}))
    with pytest.raises(CheckpointError, match="rank and scaling"):
        read_adapter(tmp_path, CONFIG)
    (tmp_path / "params.json").write_text(json.dumps({"lora": {"rank": None, "scaling": 2.0}}))
    with pytest.raises(CheckpointError, match="rank and scaling must be numbers"):
        read_adapter(tmp_path, CONFIG)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("use_dora", True), ("bias", "all"), ("modules_to_save", ["lm_head"]), ("rank_pattern", {"q_proj": 8}),
        ("alpha_pattern", {"q_proj": 8}), ("fan_in_fan_out", True), ("peft_type", "IA3"),
        ("trainable_token_indices", [1]), ("lora_bias", True), ("init_lora_weights", "pissa"),
        ("init_lora_weights", "olora"),
    ],
)  # fmt: skip
def test_settings_that_change_the_result_are_refused(folder: Path, name: str, value: object) -> None:
    _changed(folder, **{name: value})
    with pytest.raises(CheckpointError, match=name):
        read_adapter(folder, CONFIG)


def test_broken_folders_say_what_is_wrong(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no folder"):
        check_adapter(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="has no adapter"):
        check_adapter(tmp_path / "empty")
    with pytest.raises(InvalidInputError, match="trained on another model"):
        read_adapter(folder, tiny_config(n_kv_heads=4))
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    alone = {name: tensor for name, tensor in tensors.items() if "layers.0.self_attn.q_proj.lora_B" not in name}
    save_file(alone, file)
    with pytest.raises(CheckpointError, match="lora_A alone"):
        read_adapter(folder, CONFIG)
    first = next(iter(tensors))
    save_file({**tensors, first: torch.full_like(tensors[first], torch.nan)}, file)
    with pytest.raises(CheckpointError, match="not finite"):
        read_adapter(folder, CONFIG)
    save_file({**tensors, "base_model.model.lm_head.lora_A.weight": tensors[first].clone()}, file)
    with pytest.raises(CheckpointError, match=r"lm_head\.lora_A"):
        read_adapter(folder, CONFIG)
    file.write_bytes(b"not safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_adapter(folder, CONFIG)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"no adapter_model\.safetensors"):
        read_adapter(folder, CONFIG)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_adapter(folder, CONFIG)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match="r and lora_alpha"):
        read_adapter(folder, CONFIG)
