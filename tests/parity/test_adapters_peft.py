"""Against peft, on transformers' Mistral with the weights copied: adapters in both directions, training, merging."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import MistralForCausalLM

from circius.base.config import ModelConfig
from circius.model import Transformer
from circius.model.adapter import PROJECTIONS, AdapterConfig
from circius.train.batch import Batch
from circius.train.forward import batch_loss
from circius.train.lora import adapter_of, add_lora, load_into
from circius.train.merge import write_merged
from circius.weights import load_model, open_checkpoint
from circius.weights.adapter import read_adapter, write_adapter
from circius.weights.save import save_model
from tests.models import random_model, random_tokens, tiny_config
from tests.parity.test_transformers import _peer

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
"""Of transformers 5, which peft asks."""
WINDOW, LENGTH = 7, 24
TOKENS = random_tokens(LENGTH)


@pytest.fixture
def config() -> ModelConfig:
    return tiny_config(window=WINDOW)


def _plain(config: ModelConfig) -> MistralForCausalLM:
    return _peer(config, random_model(config))


def _ours(config: ModelConfig, folder: Path) -> Transformer:
    model, adapter = random_model(config), read_adapter(folder, config)
    add_lora(model, adapter.config)
    load_into(model, adapter)
    return model


def _logits(model: Transformer) -> Tensor:
    with torch.no_grad():
        return model(TOKENS, [LENGTH])


@pytest.mark.parametrize("uses_rslora", [False, True])
@pytest.mark.parametrize("targets", [tuple(PROJECTIONS), ("q_proj", "v_proj")])
def test_peft_reads_ours(config: ModelConfig, targets: tuple[str, ...], uses_rslora: bool, tmp_path: Path) -> None:
    model = random_model(config)
    plain = _logits(model)
    add_lora(model, AdapterConfig(rank=4, alpha=6, targets=targets, uses_rslora=uses_rslora, dropout=0.1))
    for name, own in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(own, std=0.2)
    write_adapter(tmp_path / "ours", adapter_of(model))
    peer = PeftModel.from_pretrained(_plain(config), tmp_path / "ours").eval()
    found = _logits(model)
    with torch.no_grad():
        torch.testing.assert_close(found, peer(TOKENS[None]).logits[0], atol=2e-5, rtol=1e-5)
    assert (found - plain).abs().max() > 0.1


@pytest.mark.parametrize("uses_rslora", [False, True])
def test_we_read_pefts(config: ModelConfig, uses_rslora: bool, tmp_path: Path) -> None:
    settings = LoraConfig(r=3, lora_alpha=5, target_modules=["k_proj", "o_proj", "gate_proj", "down_proj"],
                          use_rslora=uses_rslora, lora_dropout=0.2, init_lora_weights=False,
                          task_type="CAUSAL_LM")  # fmt: skip
    peer = get_peft_model(_plain(config), settings).eval()
    peer.save_pretrained(str(tmp_path / "theirs"))
    model = _ours(config, tmp_path / "theirs")
    with torch.no_grad():
        expected = peer(TOKENS[None]).logits[0]
    torch.testing.assert_close(_logits(model), expected, atol=2e-5, rtol=1e-5)

    served = random_model(config)
    served.adapter = read_adapter(tmp_path / "theirs", config)
    torch.testing.assert_close(_logits(served), expected, atol=2e-5, rtol=1e-5)

    save_model(random_model(config), tmp_path / "base")
    base, adapter = open_checkpoint(tmp_path / "base"), read_adapter(tmp_path / "theirs", config)
    written = write_merged(base, adapter, tmp_path / "merged")
    torch.testing.assert_close(_logits(load_model(written.path)), expected, atol=2e-5, rtol=1e-5)
    theirs = peer.merge_and_unload().state_dict()
    merged = open_checkpoint(written.path)
    for name in merged.names():
        torch.testing.assert_close(merged.read(name), theirs[name], atol=1e-6, rtol=1e-6, msg=name)


def test_pairs_begin_alike_and_have_the_same_gradients(config: ModelConfig, tmp_path: Path) -> None:
    settings = LoraConfig(r=4, lora_alpha=8, target_modules=list(PROJECTIONS), task_type="CAUSAL_LM")
    peer = get_peft_model(_plain(config), settings)
    names = {name.removeprefix("base_model.model.").replace(".default", "") for name, own in peer.named_parameters()
             if own.requires_grad}  # fmt: skip
    peer.save_pretrained(str(tmp_path / "theirs"))
    model = _ours(config, tmp_path / "theirs")
    assert {name for name, own in model.named_parameters() if own.requires_grad} == names

    targets = torch.cat((TOKENS[1:], torch.tensor([-100])))
    loss = batch_loss(model, Batch(TOKENS, [LENGTH], targets))
    (loss.total / loss.n_tokens).backward()
    their_loss = peer(TOKENS[None], labels=TOKENS[None]).loss
    their_loss.backward()
    assert float(loss.total.detach()) / loss.n_tokens == pytest.approx(float(their_loss.detach()), rel=1e-6)
    theirs = {name.removeprefix("base_model.model.").replace(".default", ""): own for name, own in
              peer.named_parameters()}  # fmt: skip
    compared = 0
    for name, own in model.named_parameters():
        if own.requires_grad:
            assert own.grad is not None
            torch.testing.assert_close(own.grad, theirs[name].grad, atol=1e-6, rtol=1e-4, msg=name)
            compared += bool(own.grad.any())
    assert compared == len(names) / 2, "B begins with zeros, so A has no gradient yet, and B has one"
