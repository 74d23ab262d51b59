"""The documented command, read by torchtitan's own parser, and everything of it built that needs no GPU."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("torchtitan.trainer", reason="the plug-in for torchtitan is tested where torchtitan 0.3.0 is")

from torchtitan.config import ConfigManager

from circius.titan import FLAVORS, config_registry
from circius.titan.loader import ShardsLoader
from tests.unit.train.runs import write_data

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")


def read(name: str, *more: str) -> Any:
    return ConfigManager().parse_args(["--module", "circius.titan", "--config", name, *more])


@pytest.mark.parametrize(
    ("name", "flavor", "attention"),
    [
        ("mistral_7b", "mistral_7b", "FlexAttention"),
        ("mistral_7b_varlen", "mistral_7b", "VarlenAttention"),
        ("mistral_7b_v03", "mistral_7b_v03", "FlexAttention"),
        ("mistral_debug", "mistral_debug", "FlexAttention"),
    ],
)
def test_configurations(name: str, flavor: str, attention: str) -> None:
    config = read(name, "--training.steps", "7", "--parallelism.tensor_parallel_degree", "2")
    assert config.training.steps == 7
    assert config.model_spec.flavor == flavor
    model = config.model_spec.model
    model.update_from_config(config=config)  # what the trainer does first: lengths, sharding, what cannot be divided
    assert {layer.attention.rope.max_seq_len for layer in model.layers} == {config.training.seq_len}
    assert {type(layer.attention.inner_attention).__qualname__ for layer in model.layers} == {f"{attention}.Config"}
    assert all(layer.attention.wo.sharding_config is not None for layer in model.layers)
    with torch.device("meta"):
        built = model.build()
    assert sum(parameter.numel() for parameter in built.parameters()) == FLAVORS[flavor].n_parameters
    assert json.loads(json.dumps(config.to_dict()))["model_spec"]["name"] == "mistral"  # as trackers are given it


def test_the_debug_configuration_reads_its_data(tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    folders = (str(tmp_path / "data" / "tok"), str(tmp_path / "data" / "shards"))
    config = read("mistral_debug", "--hf_assets_path", folders[0], "--dataloader.dataset_path", folders[1])
    tokenizer = config.tokenizer.build(tokenizer_path=config.hf_assets_path)
    loader = config.dataloader.build(
        dp_world_size=1, dp_rank=0, tokenizer=tokenizer, seq_len=config.training.seq_len, local_batch_size=8
    )
    assert isinstance(loader, ShardsLoader)
    inputs, targets = next(iter(loader))
    assert inputs["input"].shape == inputs["positions"].shape == targets.shape == (8, 512)
    assert config.dataloader.vocab_size == FLAVORS["mistral_debug"].vocab_size


def test_the_optimiser_and_the_schedule(tmp_path: Path) -> None:
    config = config_registry.mistral_debug()
    model = config.model_spec.model.build()
    with torch.no_grad():
        model.init_weights(buffer_device=None)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    optimizers = config.optimizer.build(model_parts=[model])
    schedule = config.lr_scheduler.build(optimizers=optimizers, training_steps=config.training.steps)
    trained = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    assert len(trained) == len(list(model.parameters()))
    assert schedule is not None
