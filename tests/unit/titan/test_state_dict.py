"""Weights to torchtitan and back, through the same readers and writers of checkpoints that it uses: no bit changes."""

from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import HuggingFaceStorageWriter

pytest.importorskip("torchtitan.trainer", reason="the plug-in for torchtitan is tested where torchtitan 0.3.0 is")

from safetensors.torch import load_file

from circius.base.errors import CheckpointError
from circius.titan import MistralStateDictAdapter, model_config
from circius.weights.save import save_model
from tests.models import random_model, tiny_config

pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled, unavailable or uninitialized"),
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
]
SHAPE = tiny_config()


def test_a_checkpoint_goes_through_torchtitan_to_the_bit(tmp_path: Path) -> None:
    ours = random_model(SHAPE)
    save_model(ours, tmp_path / "ours")
    config = model_config(SHAPE)
    model = config.build()
    adapter = MistralStateDictAdapter(config, str(tmp_path / "ours"))

    wanted = adapter.to_hf(model.state_dict())
    dcp.load(wanted, storage_reader=adapter.get_hf_storage_reader(str(tmp_path / "ours")))
    model.load_state_dict(adapter.from_hf(wanted))
    writer = HuggingFaceStorageWriter(str(tmp_path / "theirs"), save_distributed=True, enable_consolidation=True)
    dcp.save(adapter.to_hf(model.state_dict()), storage_writer=writer)

    written = {
        name: tensor for file in (tmp_path / "theirs").glob("*.safetensors") for name, tensor in load_file(file).items()
    }
    assert written.keys() == ours.state_dict().keys()
    for name, tensor in ours.state_dict().items():
        assert written[name].dtype == tensor.dtype
        assert written[name].equal(tensor), name


def test_only_rows_of_q_and_k_are_moved() -> None:
    adapter = MistralStateDictAdapter(model_config(SHAPE), None)
    ours = random_model(SHAPE).state_dict()
    theirs = adapter.from_hf(ours)
    back = adapter.to_hf(theirs)
    assert all(back[name].equal(tensor) for name, tensor in ours.items())
    layer = "layers.0.attention.qkv_linear"
    q, there = ours["model.layers.0.self_attn.q_proj.weight"], theirs[f"{layer}.wq.weight"]
    half = SHAPE.head_dim // 2
    assert there[:4].equal(q[[0, half, 1, half + 1]])
    assert theirs[f"{layer}.wv.weight"] is ours["model.layers.0.self_attn.v_proj.weight"]


def test_names_that_are_not_a_mistral_s() -> None:
    adapter = MistralStateDictAdapter(model_config(SHAPE), None)
    with pytest.raises(CheckpointError, match=r"layers\.0\.moe\.router\.weight"):
        adapter.to_hf({"layers.0.moe.router.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"self_attn\.q_norm\.weight"):
        adapter.from_hf({"model.layers.0.self_attn.q_norm.weight": torch.zeros(1)})
