"""Runs that are killed, asked to stop, or out of disk space: they go on as if nothing had happened."""

import fcntl
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from circius.base.errors import ConfigError, InvalidInputError, StorageError
from circius.train.checkpoint import find_checkpoints
from circius.train.recipe import with_settings
from circius.train.run import train
from circius.train.run_folder import read_record
from tests.unit.train.runs import config_of, lines_of, run_in, same_bits, tensors_of

TIMEOUT_S = 120


def _start(data: Path, run: Path, *settings: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.unit.train.run_process", str(data), str(run), *settings]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)


def _wait_for_step(process: subprocess.Popen[str], run: Path, step: int) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not any(line["step"] >= step for line in lines_of(run)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_killed_and_started_again_it_is_the_same_run_to_the_last_bit(data: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = _start(data, run)
    _wait_for_step(process, run, 12)
    process.kill()
    process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == -signal.SIGKILL
    assert find_checkpoints(run / "checkpoints")[-1].step in (10, 15)
    assert not (run / "model").exists()
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b'{"kind": "train", "step": 99, "lo')  # as if it had been killed in the middle of a line
    run_in(data, run)
    assert lines_of(run) == lines_of(whole)
    assert [line["step"] for line in lines_of(run, "train")] == list(range(1, 21))
    assert same_bits(tensors_of(run / "model"), tensors_of(whole / "model"))


def test_asked_to_stop_it_saves_and_says_by_which_signal(data: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = _start(data, run)
    _wait_for_step(process, run, 6)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=TIMEOUT_S)[1]
    assert (process.returncode, said) == (128 + signal.SIGTERM, "")
    last = find_checkpoints(run / "checkpoints")[-1].step
    assert last == lines_of(run, "train")[-1]["step"]
    assert 6 <= last < 20
    run_in(data, run)
    assert lines_of(run) == lines_of(whole)
    assert same_bits(tensors_of(run / "model"), tensors_of(whole / "model"))
    record = read_record(run)
    assert record is not None
    assert [session["why"] for session in record["sessions"]] == ["stopped by signal 15", "finished"]


def test_a_full_disk_costs_no_checkpoint_that_was_there(data: Path, whole: Path, tmp_path: Path) -> None:
    """Files past 100 KB cannot be written: the weights' is larger, the metrics' is not."""
    run = tmp_path / "run"
    run_in(data, run, "n_steps=5", "schedule.kind=constant")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StorageError, match=r"cannot write .*File too large"):
            run_in(data, run, "schedule.kind=constant")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    failed = [line["step"] for line in lines_of(run, "note") if line["text"].startswith("no checkpoint: cannot write")]
    assert failed == [10, 15, 20][: len(failed)]
    assert failed[:2] == [10, 15]
    assert lines_of(run, "train")[-1]["step"] == 20, "it went on to the end"
    assert [one.step for one in find_checkpoints(run / "checkpoints")] == [5]
    assert not list((run / "checkpoints").glob(".*")), "what was begun is gone"
    run_in(data, run, "schedule.kind=constant")
    assert [line["step"] for line in lines_of(run, "train")] == list(range(1, 21))
    other = tmp_path / "other"
    run_in(data, other, "schedule.kind=constant")
    assert same_bits(tensors_of(run / "model"), tensors_of(other / "model"))


def test_another_configuration_is_refused(data: Path, whole: Path) -> None:
    with pytest.raises(ConfigError, match=r"optimizer.lr was 0.003, now 0.1; seed was 0, now 3"):
        run_in(data, whole, "seed=3", "optimizer.lr=0.1")
    with pytest.raises(ConfigError, match=r"has taken 20 steps, and 10 are asked for"):
        run_in(data, whole, "n_steps=10")


def test_more_steps_and_other_intervals_are_no_other_run(data: Path, tmp_path: Path) -> None:
    run_in(data, tmp_path / "run", "n_steps=3", "schedule.kind=constant")
    run_in(data, tmp_path / "run", "n_steps=6", "schedule.kind=constant", "evaluation.every=2", "checkpoints.every=3")
    run_in(data, tmp_path / "straight", "n_steps=6", "schedule.kind=constant")
    assert same_bits(tensors_of(tmp_path / "run" / "model"), tensors_of(tmp_path / "straight" / "model"))
    assert lines_of(tmp_path / "run", "train") == lines_of(tmp_path / "straight", "train")


def test_a_run_that_is_finished_takes_no_more_steps(data: Path, whole: Path) -> None:
    before = (whole / "metrics.jsonl").read_bytes()
    finished = run_in(data, whole)
    assert (finished.outcome.step, finished.product) == (20, whole / "model")
    assert (whole / "metrics.jsonl").read_bytes() == before


def test_restarting_moves_the_old_run_aside(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_in(data, run, "n_steps=1")
    train(with_settings(config_of(data), ["n_steps=2", "seed=5"]), run, restart=True)
    assert len(lines_of(run, "train")) == 2
    assert len(lines_of(tmp_path / "run.old-1", "train")) == 1


def test_a_run_that_is_at_work_is_not_moved_aside(data: Path, tmp_path: Path) -> None:
    """It would go on writing where the new one begins."""
    run = tmp_path / "run"
    run_in(data, run, "n_steps=1")
    with (run / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match=r"another process is at work on this run"):
            train(with_settings(config_of(data), ["n_steps=2", "seed=5"]), run, restart=True)
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["run"]
    assert len(lines_of(run, "train")) == 1


def test_a_folder_of_something_else_is_left_alone(data: Path, tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("Dear")
    for restart in (False, True):
        with pytest.raises(InvalidInputError, match=r"holds dear.txt, and is not the folder of a run"):
            train(config_of(data), tmp_path / "letters", restart=restart)


def test_two_processes_never_write_one_run(data: Path, whole: Path) -> None:
    with (whole / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match=r"another process is at work on this run"):
            run_in(data, whole)
