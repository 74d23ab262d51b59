"""What `circius merge` refuses before it spends any time."""

from pathlib import Path
from typing import Any

import pytest

from circius.base.errors import CheckpointError, InvalidInputError, StorageError
from circius.cli.merge import command
from circius.weights.adapter import write_adapter
from circius.weights.init import init_checkpoint
from tests.packed import packable_config, write_folder
from tests.unit.train.test_merge import _adapter
from tests.unit.weights.small import SMALL


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    init_checkpoint(SMALL, folder / "model")
    write_adapter(folder / "adapter", _adapter(SMALL))
    write_adapter(folder / "other", _adapter(packable_config()))
    (folder / "bare").mkdir()
    write_folder(folder / "packed", packable_config())
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("base", "adapter", "complaint"),
    [
        ("model", "nowhere", "there is no folder .*nowhere: name the one that holds adapter_config.json"),
        ("model", "bare", "bare has no adapter"),
        ("model", "other", "which a model of 3 layers does not have|was it trained on another model"),
        ("packed", "other", "packed is quantised .* ask for --dequantize"),
    ],
)
def test_what_does_not_fit(places: dict[str, Path], tmp_path: Path, base: str, adapter: str, complaint: str) -> None:
    with pytest.raises((InvalidInputError, CheckpointError), match=complaint):
        command(str(places[base]), places.get(adapter, tmp_path / adapter), out=tmp_path / "out", quiet=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("inside", ["", "merged"])
def test_targets_in_the_way(places: dict[str, Path], inside: str) -> None:
    given: dict[str, Any] = {"out": places["model"] / inside, "force": True, "quiet": True}
    with pytest.raises((InvalidInputError, StorageError), match="choose another"):
        command(str(places["model"]), places["adapter"], **given)
    with pytest.raises(InvalidInputError, match="exists already"):
        command(str(places["model"]), places["adapter"], out=places["packed"], quiet=True)
