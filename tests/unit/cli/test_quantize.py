"""What `circius quantize` refuses before it spends any time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from circius.base.errors import CirciusError, InvalidInputError
from circius.cli.quantize import ChosenBits, Method, command
from circius.text import write_byte_tokenizer
from circius.weights.init import init_checkpoint
from tests.unit.weights.small import SMALL

GPTQ: dict[str, Any] = {"method": Method.GPTQ, "calibration": Path(__file__)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    init_checkpoint(replace(SMALL, vocab_size=259), folder, extra=write_byte_tokenizer)
    return folder


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"method": Method.GPTQ}, "--method gptq needs a --calibration text"),
        ({"calibration": Path(__file__)}, "--method nearest uses no text"),
        ({**GPTQ, "calibration": Path("nowhere.txt")}, "cannot read nowhere.txt"),
        ({**GPTQ, "calibration_tokens": 0}, "--calibration-tokens must be 1 or more, got 0"),
        ({"group": 48}, "a group must be of 32, 64, 128 inputs, got 48"),
        ({"overrides": ["4"]}, "--set must be GLOB=BITS with 4, 8, 16 or keep"),
        ({"overrides": ["*=5"]}, r"--set must be GLOB=BITS .* got '\*=5'"),
        ({"overrides": ["*.dwn_proj.*=8"]}, "is the name of no matrix"),
        ({"bits": ChosenBits.KEEP}, "no quantised weights to keep"),
    ],
)
def test_options_that_cannot_be_met(model: Path, tmp_path: Path, given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        command(str(model), tmp_path / "target", **given, quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_targets_in_the_way(model: Path) -> None:
    with pytest.raises(InvalidInputError, match="exists already"):
        command(str(model), model, quiet=True)
    with pytest.raises(InvalidInputError, match="inside one another"):
        command(str(model), model / "inside", quiet=True)


def test_calibration_needs_a_tokenizer_and_something_to_round(model: Path, tmp_path: Path) -> None:
    init_checkpoint(SMALL, tmp_path / "bare")
    with pytest.raises(CirciusError, match="no tokenizer"):
        command(str(tmp_path / "bare"), tmp_path / "target", **GPTQ, quiet=True)
    with pytest.raises(InvalidInputError, match="rounds 4-bit weights, and none would be rounded"):
        command(str(model), tmp_path / "target", **GPTQ, bits=ChosenBits.EIGHT, quiet=True)
