"""`circius merge`: the merged folder answers as base and adapter do, and the error is told."""

from pathlib import Path

import pytest
import torch

from circius.model.adapter import AdapterConfig
from circius.train.lora import adapter_of, add_lora
from circius.weights import load_model
from circius.weights.adapter import write_adapter
from tests.e2e.processes import circius, fails, one_object

ONE = "--threads=1"


@pytest.fixture(scope="module")
def adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = load_model(tiny)
    torch.manual_seed(0)
    add_lora(model, AdapterConfig(rank=4, alpha=8))
    for name, own in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(own, std=0.2)
    folder = tmp_path_factory.mktemp("adapters") / "adapter"
    write_adapter(folder, adapter_of(model))
    return folder


def test_the_merged_model_answers_as_both_together(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    shown = circius("merge", tiny, adapter, "--out", tmp_path / "merged", ONE)
    assert (shown.returncode, shown.stdout) == (0, f"{tmp_path / 'merged'}\n"), shown.stderr
    assert "rank 4, scale 2" in shown.stderr
    assert "error of the merge over" in shown.stderr
    asked = ["hello", "--raw", "--max-tokens=12", "--temperature=0", ONE]
    beside = one_object("generate", tiny, *asked, f"--adapter={adapter}")
    merged = one_object("generate", tmp_path / "merged", *asked)
    assert merged["token_ids"] == beside["token_ids"] != one_object("generate", tiny, *asked)["token_ids"]


def test_narrower_numbers_cost_more_in_any_layout(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    exact = one_object("merge", tiny, adapter, "--out", tmp_path / "exact", ONE)
    assert exact["stored_as"] == "float32"
    assert exact["max_logit_difference"] < 1e-4
    assert exact["same_top_token"] == 1
    rounded = one_object(
        "merge", tiny, adapter, "--out", tmp_path / "rounded", "--to=consolidated", "--dtype=bfloat16", ONE
    )
    assert (rounded["stored_as"], rounded["layout"]) == ("bfloat16", "consolidated")
    assert exact["max_logit_difference"] * 10 < rounded["max_logit_difference"] < 1
    assert 0 < exact["mean_kl"] + 1e-12 < rounded["mean_kl"] <= rounded["max_kl"]
    assert rounded["probe_tokens"] > 100


def test_a_folder_without_an_adapter_is_one_line(tiny: Path, tmp_path: Path) -> None:
    assert "has no adapter" in fails("merge", tiny, tiny, "--out", tmp_path / "merged", code=1)
    assert "Missing option '--out'" in fails("merge", tiny, tiny, code=2)
