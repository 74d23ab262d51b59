"""`circius pretrain`, `finetune` and `dpo` as real processes: a run, one that is interrupted, one that two share."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.processes import COMMAND, environment, fails, one_object, succeed

ONE = "--threads=1"
QUICK = ["--seq-len=64", "--set=batch_tokens=256", "--template=v1", ONE]
RECIPE = """
from circius.base.config import ModelConfig
from circius.train.config import CheckpointConfig, EvaluationConfig, RunConfig, SourceConfig
from circius.train.optim import OptimizerConfig

SHAPE = ModelConfig(dim=32, n_layers=2, head_dim=8, hidden_dim=48, n_heads=4, n_kv_heads=2, vocab_size=259,
                    context_len=128, window_size=16)


def config() -> RunConfig:
    return RunConfig(kind="pretrain", model=SHAPE, tokenizer={tokenizer!r}, sources=(SourceConfig(path={shards!r}),),
                     seq_len=64, batch_tokens=256, step_tokens=512, n_steps=8, optimizer=OptimizerConfig(lr=3e-3),
                     evaluation=EvaluationConfig(every=4), checkpoints=CheckpointConfig(every=4))
"""


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "chats.jsonl"
    said = ([("user", f"Say {n}."), ("assistant", f"Yes: {n}!")] for n in range(40))
    chats = ({"messages": [{"role": role, "content": text} for role, text in one]} for one in said)
    file.write_text("".join(f"{json.dumps(chat)}\n" for chat in chats), encoding="utf-8")
    return file


def test_an_adapter_by_defaults_and_the_model_that_wears_it(tiny: Path, chats: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shown = one_object("finetune", tiny, chats, "--lora", "--out", run, "--steps=3", *QUICK)
    assert (shown["step"], shown["steps"], shown["signal"]) == (3, 3, None)
    assert shown["product"] == str(run / "adapter")
    assert Path(shown["report"]).read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [json.loads(line)["kind"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [
        "eval", *["train"] * 3, "eval",
    ]  # fmt: skip
    assert succeed("generate", tiny, "Say 5.", "--adapter", run / "adapter", "--raw", "--max-tokens=3", ONE, "-q")


def test_ctrl_c_saves_and_the_same_command_goes_on(tiny: Path, chats: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["finetune", str(tiny), str(chats), "--out", str(run), "--steps=400", "--lr=1e-3", *QUICK]
    process = subprocess.Popen([*COMMAND, *arguments], env=environment(), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (run / "metrics.jsonl").is_file() or (run / "metrics.jsonl").read_bytes().count(b"\n") < 4:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    [stopped] = [line for line in said.splitlines() if line.startswith("stopped at step ")]
    assert stopped.endswith("of 400 and saved; the same command goes on from there")
    step = int(stopped.split()[3])
    n_done = (run / "metrics.jsonl").read_bytes().count(b'"kind": "train"')
    assert n_done == step < 400
    said = fails(*[one.replace("=1e-3", "=2e-3") for one in arguments], code=2)
    assert f"{run} is of a run with another configuration: optimizer.lr was 0.001, now 0.002" in said


def test_two_processes_share_a_run_of_a_recipe(tiny: Path, tmp_path: Path) -> None:
    from circius.text import load_tokenizer
    from circius.train.prepare import Reading, prepare

    texts = tmp_path / "texts.jsonl"
    texts.write_text("\n".join(json.dumps({"text": f"Story {n}: the wind blew {n % 7}."}) for n in range(90)))
    prepare([texts], load_tokenizer(tiny), tmp_path / "shards", reading=Reading(holdout=0.1))
    recipe = tmp_path / "recipe.py"
    recipe.write_text(RECIPE.format(tokenizer=str(tiny), shards=str(tmp_path / "shards")))
    run = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "circius"]
    command += ["pretrain", "--recipe", str(recipe), "--out", str(run), "--set=parallel.sharing=shards", ONE]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{run / 'model'}\n", "one of them speaks"
    record = json.loads((run / "run.json").read_text())
    assert record["sessions"][0]["n_processes"] == 2
    assert os.listdir(run / "checkpoints")  # noqa: PTH208 - names are enough
    answer = one_object("generate", run / "model", "Story", "--raw", "--max-tokens=4", ONE)
    assert len(answer["token_ids"]) == 4
