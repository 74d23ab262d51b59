"""What the training verbs refuse before any time is spent, and what they show without training."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from circius.base.config import ModelConfig
from circius.cli.main import run
from circius.cli.train_display import figures
from circius.text import write_byte_tokenizer
from circius.weights.init import init_checkpoint

SHAPE = ModelConfig(
    dim=32, n_layers=1, head_dim=8, hidden_dim=32, n_heads=4, n_kv_heads=2, vocab_size=259, context_len=96
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    init_checkpoint(SHAPE, folder, dtype=torch.float32, extra=write_byte_tokenizer)
    return folder


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "chats.jsonl"
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
    file.write_text(f"{json.dumps({'messages': turns})}\n" * 30, encoding="utf-8")
    return file


def _said(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 2) -> str:
    capsys.readouterr()
    assert run([str(argument) for argument in arguments]) == code
    return capsys.readouterr().err.strip()


def test_what_is_missing(capsys: pytest.CaptureFixture[str], model: Path, chats: Path, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "run"]
    assert "--out RUN is missing" in _said(capsys, "finetune", model, chats)
    assert "--probe belongs to --dry-run" in _said(capsys, "finetune", model, chats, *out, "--probe")
    assert "MODEL is missing" in _said(capsys, "finetune", *out)
    assert "DATA are missing" in _said(capsys, "finetune", model, *out)
    assert "--recipe is missing" in _said(capsys, "pretrain", *out)
    assert "the recipe story is for `circius pretrain`" in _said(capsys, "finetune", "--recipe=story", *out)
    assert "the recipe demo_lora is for `circius finetune`" in _said(capsys, "pretrain", "--recipe=demo_lora", *out)
    for option in ("--rank=8", "--alpha=8"):
        assert "--rank and --alpha are of an adapter" in _said(capsys, "finetune", model, chats, *out, option)
    for verb in (["finetune", model, chats], ["dpo", model, chats], ["pretrain", "--recipe=story"]):
        assert "give one of them" in _said(capsys, *verb, *out, "--epochs=2", "--steps=3")
    assert "--report-only needs --out" in _said(capsys, "pretrain", "--report-only")
    assert "is not the folder of a run" in _said(capsys, "pretrain", "--report-only", "--out", tmp_path)
    assert not (tmp_path / "run").exists()


def test_what_is_wrong(capsys: pytest.CaptureFixture[str], model: Path, chats: Path, tmp_path: Path) -> None:
    tune = ["finetune", model, chats, "--out", tmp_path / "run", "--template=v1"]
    assert "did you mean optimizer.lr?" in _said(capsys, *tune, "--set=lrr=1")
    assert "optimizer.lr must be a number, got 'high'" in _said(capsys, *tune, "--set", "lr=high")
    assert "no model 'nowhere' here" in _said(capsys, "finetune", "nowhere", chats, "--out", tmp_path / "run")
    nothing = tmp_path / "nothing.jsonl"
    assert "no such file" in _said(capsys, "finetune", model, nothing, "--out", tmp_path / "run")
    nothing.write_text("")
    said = _said(capsys, "finetune", model, nothing, "--out", tmp_path / "run", "--template=v1")
    assert "nothing.jsonl" in said
    nothing.write_text('{"messages": [{"role": "user", "content": "Hi"}]}\n')
    said = _said(capsys, "finetune", model, nothing, "--out", tmp_path / "run", "--template=v1")
    assert "nothing.jsonl:1: " in said
    assert "has no chat template" in _said(capsys, *tune[:-1])
    said = _said(capsys, "dpo", model, chats, "--out", tmp_path / "run", "--template=v1")
    assert "chats.jsonl:1: " in said
    assert "'chosen' and 'rejected'" in said
    said = _said(capsys, "pretrain", "--recipe=story", "--tokenizer=nowhere", "--out", tmp_path / "run")
    assert "there is no tokenizer 'nowhere' here" in said
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("Dear")
    said = _said(capsys, "finetune", model, chats, "--out", tmp_path / "other", "--template=v1")
    assert "holds letter.txt, and is not the folder of a run" in said


def test_a_dry_run_shows_the_plan_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], model: Path, chats: Path, tmp_path: Path
) -> None:
    arguments = ["finetune", str(model), str(chats), "--lora", "--rank=2", "--template=v1", "--dry-run"]
    assert run(arguments) == 0
    rows = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert {"parameters", "memory", "steps", "in all"} <= {name.strip() for name in rows}
    before = sorted(tmp_path.iterdir())
    assert run([*arguments, "--probe", "--json", "--out", str(tmp_path / "run")]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["trained"] == 2 * (32 + 32 + 2 * (32 + 16) + 32 + 32 + 3 * (32 + 32))
    assert plan["seconds"] > 0
    assert any("are few to learn from" in note for note in plan["notes"])
    assert sorted(tmp_path.iterdir()) == before


def test_check_says_what_training_would_take(
    capsys: pytest.CaptureFixture[str], model: Path, chats: Path, tmp_path: Path
) -> None:
    def shown(*arguments: object) -> dict[str, Any]:
        capsys.readouterr()
        assert run([*map(str, arguments), "--template=v1", "--json"]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    whole, adapter = shown("data", "check", chats, "--model", model)["training"]
    assert (whole["verb"], whole["options"], adapter["options"]) == ("finetune", [], ["--lora"])
    for told, option in ((whole, "--threads=1"), (adapter, "--lora")):
        plan = shown("finetune", model, chats, "--dry-run", "--probe", option)
        assert told["memory_bytes"] == plan["memory_bytes"]
        assert told["steps"] == pytest.approx(plan["steps"], abs=1)
        assert 0 < told["least_seconds"] < 2 * plan["seconds"], "nothing is faster than the products alone"
    long = tmp_path / "long.jsonl"
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo" * 90}]
    long.write_text(json.dumps({"messages": turns}))
    assert shown("data", "check", long, "--model", model)["training"][0]["options"] == ["--seq-len=199"]
    assert shown("data", "check", chats, "--model", model / "tokenizer.json")["training"] == []


def test_torchrun_starts_a_run_again_without_beginning_anew(
    model: Path, chats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command still says --restart, which was obeyed by the processes of which one died."""
    arguments = ["finetune", model, chats, "--template=v1", "--seq-len=64", "--steps=1", "--lora", "--restart", "-q"]
    command = [*map(str, arguments), f"--out={tmp_path / 'run'}"]
    assert [run(command), run(command)] == [0, 0]
    assert (tmp_path / "run.old-1").is_dir()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert run(command) == 0
    assert not (tmp_path / "run.old-2").exists()


def test_what_does_not_fit_is_refused(capsys: pytest.CaptureFixture[str], model: Path, chats: Path) -> None:
    huge = ["--set=seq_len=64", "--set=batch_tokens=1000000000000"]
    said = _said(capsys, "finetune", model, chats, "--template=v1", "--dry-run", *huge)
    assert "the run needs about" in said
    assert "try recompute=true" in said


def test_a_steps_figures_on_one_line() -> None:
    record = {"loss": 0.69, "margin": 0.1, "accuracy": 0.5, "lr": 1e-5, "grad_norm": 2.0, "tokens_per_s": 10.0}
    shown = figures({**record, "mfu": 0.31, "memory_bytes": 2**30, "skipped": True})
    assert shown == (
        "loss 0.6900  margin 0.100  accuracy 0.500  lr 1.00e-05  norm 2.00  10 tok/s  MFU 31%  1.0 GiB  skipped"
    )
