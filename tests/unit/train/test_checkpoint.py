"""Folders of checkpoints: which of them count, what is kept, and what a damaged one is."""

import json
import random
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from circius.base.errors import CheckpointError, CirciusError, StorageError
from circius.train.checkpoint import (
    STATE_FILE,
    find_checkpoints,
    keep_checkpoints,
    remove_unfinished,
    write_checkpoint,
)
from circius.train.metrics import MetricsFile, check_trackers, read_metrics
from circius.train.stored_state import WHOLE_FILE
from circius.train.world import World

CPU = World(device=torch.device("cpu"))
GROUPS = {
    "model": {"a": torch.arange(6.0).view(2, 3), "b": torch.arange(4, dtype=torch.bfloat16)},
    "optimizer": {"n_steps": torch.tensor([7]), "exp_avg.a": torch.ones(2, 3)},
}


def _write(folder: Path, *steps: int) -> None:
    for step in steps:
        write_checkpoint(folder, step, GROUPS, {"loss": step / 10}, CPU)


def _zeros(group: str) -> dict[str, torch.Tensor]:
    return {name: torch.zeros_like(tensor) for name, tensor in GROUPS[group].items()}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    _write(tmp_path, 5)
    [found] = find_checkpoints(tmp_path)
    assert (found.step, found.state["loss"], found.state["n_processes"]) == (5, 0.5, 1)
    for group, tensors in GROUPS.items():
        into = _zeros(group)
        found.read(group, into)
        assert all(torch.equal(into[name], tensors[name]) for name in tensors)
    assert found.tensors("optimizer")["n_steps"] == ((1,), torch.int64)


def test_random_numbers_go_on(tmp_path: Path) -> None:
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    _write(tmp_path, 1)

    def drawn() -> list[float]:
        return [random.random(), random.gauss(), float(np.random.normal()), float(torch.randn(())), random.gauss()]

    first = drawn()
    drawn()
    assert find_checkpoints(tmp_path)[0].restore_random(CPU)
    assert drawn() == first
    other = World(device=torch.device("cpu"), rank=3, size=4, n_data=4)
    assert not find_checkpoints(tmp_path)[0].restore_random(other), "it was not there then"


def test_only_whole_ones_count(tmp_path: Path) -> None:
    _write(tmp_path, 1, 2, 3, 10)
    (tmp_path / "step-00000010" / STATE_FILE).unlink()  # killed before the last file
    (tmp_path / "step-00000003" / "model" / WHOLE_FILE).write_bytes(b"short")
    shutil.rmtree(tmp_path / "step-00000002" / "optimizer")
    (tmp_path / ".step-00000020.partial").mkdir()
    assert [found.step for found in find_checkpoints(tmp_path)] == [1]
    remove_unfinished(tmp_path)
    assert not (tmp_path / ".step-00000020.partial").exists()
    _write(tmp_path, 3)
    assert [found.step for found in find_checkpoints(tmp_path)] == [1, 3], "a damaged one is replaced"
    assert find_checkpoints(tmp_path / "nowhere") == []


def test_one_of_another_version_is_not_passed_over(tmp_path: Path) -> None:
    _write(tmp_path, 1)
    file = tmp_path / "step-00000001" / STATE_FILE
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 2}))
    with pytest.raises(CheckpointError, match=r"has format 2, and this circius reads 1"):
        find_checkpoints(tmp_path)


def test_the_last_ones_and_the_best_are_kept(tmp_path: Path) -> None:
    _write(tmp_path, 1, 2, 3, 4, 5)
    keep_checkpoints(tmp_path, last=2, best=2)
    assert [found.step for found in find_checkpoints(tmp_path)] == [2, 4, 5]
    keep_checkpoints(tmp_path, last=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]


@pytest.mark.parametrize(
    ("into", "said"),
    [
        ({"c": torch.zeros(1)}, "has no c, which this run needs"),
        ({"a": torch.zeros(3, 2)}, r"a is \(2, 3\) of torch.float32, and \(3, 2\) of torch.float32 is needed"),
        ({"b": torch.zeros(4)}, r"b is \(4,\) of torch.bfloat16, and \(4,\) of torch.float32 is needed"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path: Path, into: dict[str, torch.Tensor], said: str) -> None:
    _write(tmp_path, 1)
    with pytest.raises(CheckpointError, match=said):
        find_checkpoints(tmp_path)[0].read("model", into)


def test_a_disk_too_small_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path, 1)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(StorageError, match=r"not enough disk space"):
        _write(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_metrics_after_the_last_checkpoint_are_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    with MetricsFile(file, offset=0) as metrics:
        metrics.write({"kind": "train", "step": 1, "loss": 1.5})
        offset = metrics.settle()
        metrics.write({"kind": "train", "step": 2, "loss": float("nan")})
    assert read_metrics(file)[1]["loss"] == "nan"
    with MetricsFile(file, offset=offset) as metrics:
        metrics.write({"kind": "train", "step": 2, "loss": 2.5})
    assert [line["loss"] for line in read_metrics(file)] == [1.5, 2.5]
    with pytest.raises(CheckpointError, match=r"was it edited"):
        MetricsFile(file, offset=10_000)
    file.write_bytes(file.read_bytes() + b"{broken\n")
    with pytest.raises(CheckpointError, match=r"line 3 is no JSON"):
        read_metrics(file)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_says_so(name: str) -> None:
    if find_spec(name) is not None:
        pytest.skip(f"{name} is installed")
    with pytest.raises(CirciusError, match=f"the tracker {name} needs the package {name}: `pip install {name}`"):
        check_trackers([name])
