"""Two real processes under torchrun: what they learn together is what one learns alone."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from circius.base.errors import ConfigError
from circius.train.checkpoint import find_checkpoints
from circius.train.config import ParallelConfig
from circius.train.parallel import check_split
from circius.train.prepared import check_parallel
from circius.train.run import train
from circius.train.run_folder import read_record
from circius.train.stored_state import WHOLE_FILE
from circius.train.world import World
from tests.unit.train.runs import all_close, lines_of, losses_of, same_bits, tensors_of, worst
from tests.unit.train.two_processes import adapter, preferences, shared

TIMEOUT_S = 150
SHOWN = {"train": ("loss", "grad_norm", "lr", "n", "tokens"), "eval": ("loss", "bits_per_byte")}
"""What two runs must agree in, by kind of line."""


def torchrun(*arguments: str | Path, restarts: int = 0) -> subprocess.Popen[str]:
    """Two processes of this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [f"--max-restarts={restarts}", "-m", *map(str, arguments)]
    return subprocess.Popen(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same runs by one process."""
    out = tmp_path_factory.mktemp("alone")
    train(shared(data), out / "run")
    train(adapter(data, out / "run" / "model"), out / "adapter")
    train(preferences(data, out / "run" / "model"), out / "preferences")
    return out


@pytest.fixture(scope="module")
def together(data: Path, alone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes made."""
    out = tmp_path_factory.mktemp("together")
    shutil.copytree(alone / "run", out / "grown")
    last = find_checkpoints(out / "grown" / "checkpoints")[-1]
    assert last.step == 6
    shutil.rmtree(last.folder)
    process = torchrun("tests.unit.train.two_processes", data, out, alone / "run" / "model")
    _, said = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, said
    return out


def _same_course(one: Path, other: Path, *, steps: slice = slice(None), kinds: Sequence[str] = tuple(SHOWN)) -> None:
    """Losses, gradient norms and evaluations agree to a millionth."""
    for kind in kinds:
        for name in SHOWN[kind]:
            figures = [[line[name] for line in lines_of(run, kind)] for run in (one, other)]
            if kind == "train":
                figures = [own[steps] for own in figures]
            assert figures[0]
            scale = max(map(abs, figures[0]))
            assert all_close(*figures, within=1e-6 * scale), (kind, name, figures)


def test_copies_in_two_processes_learn_what_one_learns(alone: Path, together: Path) -> None:
    _same_course(alone / "run", together / "copies")
    assert worst(tensors_of(alone / "run" / "model"), tensors_of(together / "copies" / "model")) < 1e-6


def test_shards_of_two_processes_go_on_in_one(data: Path, alone: Path, together: Path) -> None:
    """Three steps by two processes with a part of the weights each, and three by one with all of them."""
    [before] = find_checkpoints(together / "shards" / "checkpoints")
    assert before.state["n_processes"] == 2
    assert not (before.folder / "model" / WHOLE_FILE).exists(), "each has written its own part"
    train(shared(data, parallel=ParallelConfig(sharing="shards")), together / "shards")
    _same_course(alone / "run", together / "shards")
    assert worst(tensors_of(alone / "run" / "model"), tensors_of(together / "shards" / "model")) < 1e-6


def test_what_one_process_began_two_go_on_with(alone: Path, together: Path) -> None:
    """From the third step of one, whose checkpoint was whole."""
    record = read_record(together / "grown")
    assert record is not None
    assert [(session["from_step"], session["n_processes"]) for session in record["sessions"]] == [(0, 1), (3, 2)]
    _same_course(alone / "run", together / "grown")
    assert worst(tensors_of(alone / "run" / "model"), tensors_of(together / "grown" / "model")) < 1e-6


def test_in_sixteen_bits_gradients_are_added_up_in_thirty_two(data: Path, together: Path, tmp_path: Path) -> None:
    train(shared(data, "dtype=bfloat16"), tmp_path / "run")
    assert all_close(losses_of(tmp_path / "run"), losses_of(together / "narrow"), within=5e-3)
    assert {tensor.dtype for tensor in tensors_of(together / "narrow" / "model").values()} == {
        tensor.dtype for tensor in tensors_of(tmp_path / "run" / "model").values()
    }


def test_matrices_cut_in_two_compute_what_whole_ones_do(alone: Path, together: Path) -> None:
    """Training, evaluations, the exported model; and samples, for which the parts are put together."""
    _same_course(alone / "run", together / "tensor")
    assert worst(tensors_of(alone / "run" / "model"), tensors_of(together / "tensor" / "model")) < 1e-6
    assert [line["how"] for line in lines_of(together / "tensor", "sample")] == ["greedy", "temperature 0.8"]


def test_an_adapter_of_two_processes_is_whole(alone: Path, together: Path) -> None:
    _same_course(alone / "adapter", together / "adapter")
    own = tensors_of(together / "adapter" / "adapter")
    assert worst(tensors_of(alone / "adapter" / "adapter"), own) < 1e-6
    assert any(float(tensor.abs().max()) > 0 for name, tensor in own.items() if "lora_B" in name)


def test_two_processes_ask_the_reference_half_each(alone: Path, together: Path) -> None:
    """A first one that asked for all of them would keep the others waiting, longer than they wait."""
    kept = [load_file(next((out / "preferences").glob("reference-*"))) for out in (alone, together)]
    assert worst(*kept) < 1e-4
    asked = [int((together / f"asked-{rank}").read_text()) for rank in (0, 1)]
    assert sum(asked) >= 4
    assert abs(asked[0] - asked[1]) <= 1
    _same_course(alone / "preferences", together / "preferences", kinds=["train"])


def test_what_processes_cannot_share_is_said_before(data: Path) -> None:
    two = World(device=torch.device("cpu"), size=2, n_data=2)
    with pytest.raises(ConfigError, match=r"a step has 1 micro-batches .* which 2 processes cannot share"):
        check_parallel(shared(data, "step_tokens=256"), two)
    with pytest.raises(ConfigError, match=r"muon needs whole matrices"):
        check_parallel(shared(data, "optimizer.kind=muon", "parallel.sharing=shards"), two)
    with pytest.raises(ConfigError, match=r"parallel.tensor is 3, and n_kv_heads, 2, is no multiple"):
        check_split(2, 48, 3)


@pytest.mark.slow
def test_a_process_that_dies_costs_the_steps_since_the_last_checkpoint(data: Path, tmp_path: Path) -> None:
    """torchrun starts both again, and they end with the same bits as two that nobody disturbed."""
    runs = {name: tmp_path / name for name in ("straight", "killed")}
    straight = torchrun("tests.unit.train.run_process", data, runs["straight"])
    _, said = straight.communicate(timeout=TIMEOUT_S)
    assert straight.returncode == 0, said
    killed = torchrun("tests.unit.train.run_process", data, runs["killed"], restarts=1)
    deadline = time.monotonic() + TIMEOUT_S
    while not any(line["step"] >= 12 for line in lines_of(runs["killed"])):
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    children = Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    _, said = killed.communicate(timeout=TIMEOUT_S)
    assert killed.returncode == 0, said
    assert lines_of(runs["killed"]) == lines_of(runs["straight"])
    assert same_bits(*(tensors_of(run / "model") for run in runs.values()))
    record = read_record(runs["killed"])
    assert record is not None
    assert [session["from_step"] for session in record["sessions"]] in ([0, 10], [0, 15])
