"""A model in memory, written and loaded again: the same weights, configuration and logits in every layout."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from circius.base.config import ModelConfig
from circius.base.errors import CheckpointError
from circius.weights.checkpoint import open_checkpoint
from circius.weights.load import load_model
from circius.weights.save import save_model

from .small import FORMATS, MIXED, SMALL, TIED, logits_of, random_model


@pytest.mark.parametrize("config", [SMALL, TIED])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("to", "name"), FORMATS)
def test_loads_as_it_was_saved(tmp_path: Path, to: str, name: str, dtype: torch.dtype, config: ModelConfig) -> None:
    model = random_model(config, dtype)
    written = save_model(model, tmp_path / name, to=to)
    loaded = load_model(tmp_path / name, dtype=dtype)
    assert replace(loaded.config, norm_eps=config.norm_eps) == config
    assert loaded.config.norm_eps == pytest.approx(config.norm_eps, rel=1e-7)  # float32 in GGUF
    weights = dict(model.named_parameters())
    assert set(weights) == {key for key, _ in loaded.named_parameters()}
    assert all(torch.equal(weights[key], value) for key, value in loaded.named_parameters())
    assert torch.equal(logits_of(loaded), logits_of(model))
    assert written.path == tmp_path / name
    assert written.stored_as == str(dtype).removeprefix("torch.")
    assert written.n_tensors == len(weights)


@pytest.mark.parametrize("to", ["hf", "consolidated", "consolidated-pth"])
def test_windows_of_single_layers_survive(tmp_path: Path, to: str) -> None:
    model = random_model(MIXED)
    save_model(model, tmp_path / "m", to=to)
    loaded = load_model(tmp_path / "m")
    assert loaded.config.windows == (5, None, 5)
    assert torch.equal(logits_of(loaded), logits_of(model))


def test_different_window_sizes_need_the_consolidated_layout(tmp_path: Path) -> None:
    config = replace(SMALL, window_size=(2, 3, None))
    save_model(random_model(config), tmp_path / "m", to="consolidated")
    assert open_checkpoint(tmp_path / "m").config == config


def test_dtype_is_changed_on_the_way(tmp_path: Path) -> None:
    model = random_model(SMALL)
    save_model(model, tmp_path / "m", dtype=torch.bfloat16)
    checkpoint = open_checkpoint(tmp_path / "m")
    assert checkpoint.dtype == torch.bfloat16
    for name, weight in model.named_parameters():
        assert torch.equal(checkpoint.read(name), weight.bfloat16())


def test_norms_in_float32_join_the_rest_only_where_exact(tmp_path: Path) -> None:
    model = random_model(SMALL, torch.bfloat16)
    model.model.norm.float()
    assert save_model(model, tmp_path / "exact").notes == ()
    assert open_checkpoint(tmp_path / "exact").tensors["model.norm.weight"].dtype == torch.bfloat16

    model.model.norm.weight[3] = 0.1
    written = save_model(model, tmp_path / "inexact")
    assert open_checkpoint(tmp_path / "inexact").tensors["model.norm.weight"].dtype == torch.float32
    assert open_checkpoint(tmp_path / "inexact").read("model.norm.weight")[3] == torch.tensor(0.1)
    assert "1 weights, model.norm.weight first, keep their own dtype" in written.notes[0]


@pytest.mark.parametrize(("to", "name"), FORMATS)
def test_overflow_in_float16_names_the_tensor_and_leaves_nothing(tmp_path: Path, to: str, name: str) -> None:
    model = random_model(SMALL)
    model.model.layers[2].mlp.up_proj.weight[1, 2] = -1e6
    with pytest.raises(CheckpointError, match=r"model\.layers\.2\.mlp\.up_proj\.weight holds 1e\+06"):
        save_model(model, tmp_path / name, to=to, dtype=torch.float16)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("to", "name"), FORMATS)
def test_progress_runs_from_nothing_to_everything(tmp_path: Path, to: str, name: str) -> None:
    seen: list[tuple[int, int]] = []
    save_model(random_model(SMALL), tmp_path / name, to=to, on_progress=lambda *at: seen.append(at))
    done, totals = zip(*seen, strict=True)
    assert done[0] == 0
    assert done[-1] == totals[0]
    assert list(done) == sorted(done)
    assert len(set(totals)) == 1


def test_window_in_gguf_is_reported(tmp_path: Path) -> None:
    assert "llama.cpp ignores" in save_model(random_model(SMALL), tmp_path / "m.gguf", to="gguf").notes[0]
    assert save_model(random_model(TIED), tmp_path / "t.gguf", to="gguf").notes == ()


def test_tied_output_is_written_once(tmp_path: Path) -> None:
    written = save_model(random_model(TIED), tmp_path / "m", to="consolidated")
    assert written.n_tensors == 9 * TIED.n_layers + 2
    assert "no output.weight" in written.notes[0]
