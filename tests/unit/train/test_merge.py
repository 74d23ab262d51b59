"""Merged weights are base and adapter in one, in every layout, and the reported error is the one there is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from circius.base.config import ModelConfig
from circius.base.errors import InvalidInputError
from circius.model import Transformer
from circius.model.adapter import PROJECTIONS, Adapter, AdapterConfig, LowRank, module_name
from circius.text import write_byte_tokenizer
from circius.train.merge import MergedWeights, write_merged
from circius.train.merge_error import measure, probe_ids
from circius.weights import load_model, open_checkpoint
from circius.weights.checkpoint import Checkpoint
from circius.weights.save import save_model
from tests.packed import packable_config, write_folder
from tests.unit.weights.small import FORMATS, SMALL, TIED, random_model


def _adapter(config: ModelConfig, std: float = 0.1, **settings: Any) -> Adapter:
    shape = AdapterConfig(**{"rank": 4, "alpha": 8, **settings})
    matrices = dict(Transformer(config).named_parameters())
    parts = {}
    for layer in range(config.n_layers):
        for target in shape.targets:
            outputs, inputs = matrices[f"{module_name(layer, target)}.weight"].shape
            parts[module_name(layer, target)] = LowRank(
                std * torch.randn(shape.rank, inputs), std * torch.randn(outputs, shape.rank)
            )
    return Adapter(shape, parts)


def _saved(folder: Path, config: ModelConfig = SMALL, to: str = "hf", dtype: torch.dtype = torch.float32) -> Checkpoint:
    target = folder / ("base.gguf" if to == "gguf" else "base")
    save_model(random_model(config, dtype), target, to=to)
    return open_checkpoint(target)


def _beside(base: Checkpoint, adapter: Adapter) -> Tensor:
    model = load_model(base, dtype=torch.float32)
    model.adapter = adapter
    with torch.no_grad():
        return model(torch.arange(40) * 7 % 101, [40])


@pytest.mark.parametrize("source", [name for name, _ in FORMATS])
@pytest.mark.parametrize(("to", "name"), FORMATS)
def test_from_every_layout_into_every_layout(source: str, to: str, name: str, tmp_path: Path) -> None:
    """Rows of query and key are turned where the layouts want it, those that the adapter adds too."""
    base, adapter = _saved(tmp_path, to=source), _adapter(SMALL)
    written = write_merged(base, adapter, tmp_path / name, to=to)
    merged = load_model(written.path)
    assert merged.dtype == torch.float32
    with torch.no_grad():
        found = merged(torch.arange(40) * 7 % 101, [40])
    expected = _beside(base, adapter)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        plain = load_model(base)(torch.arange(40) * 7 % 101, [40])
    assert (plain - expected).abs().max() > 0.5, "the adapter changes something"
    error = measure(base, adapter, open_checkpoint(written.path), list(range(40)))
    assert error.largest < 1e-3
    assert error.agreeing == 1


def test_sums_are_made_in_float32_and_rounded_once(tmp_path: Path) -> None:
    base, adapter = _saved(tmp_path, dtype=torch.bfloat16), _adapter(SMALL, std=0.02, targets=("q_proj", "up_proj"))
    name = "model.layers.1.self_attn.q_proj"
    part, weight = adapter.parts[name], base.read(f"{name}.weight")
    exact = weight.double() + 2.0 * part.up.double() @ part.down.double()
    merged = MergedWeights(base, adapter)
    torch.testing.assert_close(merged.read(f"{name}.weight").double(), exact, atol=1e-6, rtol=1e-6)
    written = open_checkpoint(write_merged(base, adapter, tmp_path / "merged").path)
    assert {tensor.dtype for tensor in written.tensors.values()} == {torch.bfloat16}
    assert written.read(f"{name}.weight").equal(exact.float().bfloat16())
    untouched = "model.layers.1.self_attn.k_proj.weight"
    assert written.read(untouched).equal(base.read(untouched))
    wide = open_checkpoint(write_merged(base, adapter, tmp_path / "wide", dtype=torch.float32).path)
    torch.testing.assert_close(wide.read(f"{name}.weight").double(), exact, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("config", [SMALL, TIED])
def test_the_error_is_that_of_the_whole_models(config: ModelConfig, tmp_path: Path) -> None:
    """Layer by layer from disk, the numbers are those of both models in memory."""
    base, adapter = _saved(tmp_path, config, dtype=torch.bfloat16), _adapter(config, std=0.05)
    merged = open_checkpoint(write_merged(base, adapter, tmp_path / "merged").path)
    error = measure(base, adapter, merged, (torch.arange(40) * 7 % 101).tolist())
    expected = _beside(base, adapter)
    with torch.no_grad():
        found = load_model(merged, dtype=torch.float32)(torch.arange(40) * 7 % 101, [40])
    assert error.n_tokens == 40
    assert error.largest == pytest.approx(float((expected - found).abs().max()), rel=1e-2)
    divergence = torch.nn.functional.kl_div(
        found.double().log_softmax(-1), expected.double().log_softmax(-1), log_target=True, reduction="none"
    ).sum(-1)
    assert error.mean_divergence == pytest.approx(float(divergence.mean()), rel=1e-2)
    assert error.largest_divergence == pytest.approx(float(divergence.max()), rel=1e-2)
    assert error.agreeing == pytest.approx(float((expected.argmax(-1) == found.argmax(-1)).double().mean()))
    assert 0 < error.mean_divergence < 0.1


def test_a_quantised_base_is_refused_unless_its_numbers_are_wanted(tmp_path: Path) -> None:
    config = packable_config()
    base, adapter = open_checkpoint(write_folder(tmp_path / "base", config)), _adapter(config)
    with pytest.raises(InvalidInputError, match=r"quantised .* merge into the original weights, or .* --dequantize"):
        write_merged(base, adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    written = write_merged(base, adapter, tmp_path / "merged", dequantize=True)
    merged = open_checkpoint(written.path)
    assert not merged.is_quantised
    assert merged.dtype == torch.float32
    assert measure(base, adapter, merged, list(range(40))).largest < 1e-3


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    base = _saved(tmp_path)
    with pytest.raises(InvalidInputError, match="which a model of 3 layers does not have"):
        write_merged(base, _adapter(replace(SMALL, n_layers=4)), tmp_path / "merged")
    with pytest.raises(InvalidInputError, match="was it trained on another model"):
        write_merged(base, _adapter(replace(SMALL, hidden_dim=128)), tmp_path / "merged")
    with pytest.raises(InvalidInputError, match="inside one another"):
        write_merged(base, _adapter(SMALL), base.path / "merged")


def test_the_probe_is_the_text_or_ids_over_the_whole_vocabulary(tmp_path: Path) -> None:
    bare = _saved(tmp_path)
    ids = probe_ids(bare)
    assert len(ids) == 128
    assert min(ids) < 5
    assert max(ids) > 95
    save_model(random_model(replace(SMALL, vocab_size=300)), tmp_path / "bytes", extra=write_byte_tokenizer)
    assert len(probe_ids(open_checkpoint(tmp_path / "bytes"))) > 300


def test_all_projections_are_merged() -> None:
    assert set(_adapter(SMALL).config.targets) == set(PROJECTIONS)
