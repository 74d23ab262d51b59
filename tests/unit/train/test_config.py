"""What a configuration refuses, and the way to JSON and back."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from circius.base.config import PRESETS, ModelConfig
from circius.base.errors import CirciusError, ConfigError
from circius.model.adapter import AdapterConfig
from circius.train.config import (
    CheckpointConfig,
    EvaluationConfig,
    InitConfig,
    ParallelConfig,
    RunConfig,
    SampleConfig,
    ScheduleConfig,
    SourceConfig,
    forbidden_changes,
)
from circius.train.config_json import differences, from_json, set_fields, to_json
from circius.train.optim import OptimizerConfig
from circius.train.recipe import load_recipe, with_settings

BASE = RunConfig(
    kind="finetune",
    model="somewhere",
    sources=(SourceConfig(path="chats.jsonl"),),
    seq_len=128,
    batch_tokens=256,
    n_steps=10,
)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "grow"}, "kind must be one of pretrain, finetune, dpo, got 'grow'"),
        ({"sources": ()}, "nothing to train on"),
        ({"seq_len": 0}, "seq_len must be a whole number, 1 or more, got 0"),
        ({"seq_len": True}, "seq_len must be a whole number, 1 or more, got True"),
        ({"batch_tokens": 100}, "batch_tokens, 100, must hold at least an example of seq_len, 128: give 128 or more"),
        ({"kind": "dpo", "batch_tokens": 200}, "a pair of two answers of seq_len, 128: give 256 or more"),
        ({"step_tokens": 300}, "step_tokens, 300, must be a multiple of batch_tokens, 256"),
        ({"n_epochs": 1.0}, "give one of n_steps, n_epochs and n_tokens, got n_steps and n_epochs"),
        ({"n_steps": None}, "give one of n_steps, n_epochs and n_tokens, got none"),
        ({"n_steps": None, "n_epochs": 0.0}, "n_epochs must be above 0"),
        ({"clip": 0.0}, "clip must be above 0 or none"),
        ({"z_loss": -1.0}, "z_loss must be 0 or more"),
        ({"seed": -1}, "seed must be a whole number from 0 to 4294967295, got -1"),
        ({"seed": 2**48}, "seed must be a whole number from 0 to 4294967295"),
        ({"dtype": "bf16"}, "dtype must be one of float32, bfloat16, got 'bf16'"),
        ({"template": "v4"}, "template must be one of auto, v1, v2, v3, model, got 'v4'"),
        ({"too_long": "cut"}, "too_long must be one of error, drop, split, got 'cut'"),
        ({"quantize": "int8"}, "quantize must be one of int4, nf4, got 'int8'"),
        ({"trackers": ("wandb", "wand")}, "trackers must be one of tensorboard, wandb, mlflow, got 'wand'"),
        ({"kind": "dpo", "too_long": "split"}, "a pair of answers is whole, or left out (drop)"),
        ({"model": PRESETS["v0.1"]}, "a finetune run begins with trained weights"),
        ({"quantize": "nf4"}, "quantize freezes the weights, so something must be trained beside them: give lora"),
        (
            {"kind": "pretrain", "model": PRESETS["v0.1"], "lora": AdapterConfig(rank=1, alpha=1)},
            "lora trains beside weights that are there",
        ),
        (
            {"sources": (SourceConfig(path="a", weight=1.0), SourceConfig(path="b"))},
            "give all of them a weight, or none",
        ),
    ],
)
def test_what_a_run_cannot_be(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        replace(BASE, **changes)  # type: ignore[arg-type]
    assert said in str(caught.value)


def test_what_its_parts_cannot_be() -> None:
    with pytest.raises(ConfigError, match=r"the weight of x must be above 0, got 0"):
        SourceConfig(path="x", weight=0.0)
    with pytest.raises(ConfigError, match=r"a source needs a path"):
        SourceConfig(path="")
    with pytest.raises(ConfigError, match=r"evaluation.every must be a whole number"):
        EvaluationConfig(every=0)
    with pytest.raises(ConfigError, match=r"evaluation.share must be at least 0 and below 1"):
        EvaluationConfig(share=1.0)
    with pytest.raises(ConfigError, match=r"evaluation.least_gain must be 0 or more, got -0.1"):
        EvaluationConfig(least_gain=-0.1)
    with pytest.raises(ConfigError, match=r"checkpoints.export must be one of last, best, got 'beast'"):
        CheckpointConfig(export="beast", keep_best=True)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"parallel.sharing must be one of copies, shards, got 'shard'"):
        ParallelConfig(sharing="shard")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"init.residual must be one of scaled, zero, plain, got 'zeros'"):
        InitConfig(residual="zeros")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"samples.temperature must be above 0"):
        SampleConfig(temperature=0.0)
    with pytest.raises(ConfigError, match=r'checkpoints.export "best" needs checkpoints.keep_best'):
        CheckpointConfig(export="best")
    with pytest.raises(ConfigError, match=r"schedule.warmup must be a share below 1 or a whole number of steps"):
        ScheduleConfig(warmup=1.5).over(10)


def test_a_schedule_in_shares_and_in_steps() -> None:
    schedule = ScheduleConfig(kind="wsd", warmup=0.1, decay=5).over(20)
    assert (schedule.n_warmup, schedule.n_decay) == (2, 5)


def test_there_and_back_through_json() -> None:
    config = replace(
        BASE,
        lora=AdapterConfig(rank=4, alpha=8, targets=("q_proj",)),
        optimizer=OptimizerConfig(lr=1e-3, betas=(0.8, 0.9)),
        trackers=("tensorboard",),
    )
    assert from_json(RunConfig, json.loads(json.dumps(to_json(config)))) == config
    random = replace(BASE, kind="pretrain", model=replace(PRESETS["v0.1"], n_layers=2, window_size=(8, None)))
    assert from_json(RunConfig, json.loads(json.dumps(to_json(random)))) == random


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("lrr=1", "lrr: no such field; did you mean optimizer.lr?"),
        ("n_stepps=1", "n_stepps: no such field; did you mean n_steps?"),
        ("optimizer.wd=1", "optimizer.wd: no such field; there are lr, kind, weight_decay"),
        ("lr=fast", "optimizer.lr must be a number, got 'fast'"),
        ("lr=NaN", "optimizer.lr must be a number, got 'NaN'"),
        ("n_steps=2.5", "n_steps must be a whole number or none, got 2.5"),
        ("recompute=1", "recompute must be true or false, got 1"),
        ("dtype=float8", "dtype must be one of float32, bfloat16, got 'float8'"),
        ("optimizer.betas=[0.9]", "optimizer.betas takes 2 values"),
        ("sources.1.path=x", "sources.1: there are 1 of them, numbered from 0"),
        ("kind.of=x", "kind is 'finetune', which has no fields of its own"),
        ("lora.rank=8", "lora.alpha must be given"),
        ("=1", "a setting is name=value"),
        ("n_steps", "a setting is name=value"),
    ],
)
def test_settings_that_are_refused(setting: str, said: str) -> None:
    with pytest.raises(CirciusError) as caught:
        set_fields(BASE, [setting])
    assert said in str(caught.value)


def test_settings() -> None:
    settings = ["lr=1e-3", "n_tokens=1e6", "lora.rank=8", "lora.alpha=16", "sources.0.path=y", "guard=none"]
    config = with_settings(BASE, [*settings, "recompute=yes", 'samples.prompts=["a", "b"]', "clip=none", "seq_len=300",
                                  "batch_tokens=600"])  # fmt: skip
    assert (config.optimizer.lr, config.n_steps, config.n_tokens) == (1e-3, None, 1_000_000)
    assert type(config.n_tokens) is int
    assert config.lora == AdapterConfig(rank=8, alpha=16.0)
    assert (config.sources[0].path, config.recompute, config.samples.prompts) == ("y", True, ("a", "b"))
    assert (config.clip, config.seq_len) == (None, 300), "checked when all are set, whatever their order"


def test_fields_that_are_missing_or_unknown_in_a_file() -> None:
    content = to_json(BASE)
    with pytest.raises(ConfigError, match=r"kind must be given"):
        from_json(RunConfig, {name: value for name, value in content.items() if name != "kind"})
    with pytest.raises(ConfigError, match=r"optimizer.warmup: no such field; there are lr"):
        from_json(RunConfig, {**content, "optimizer": {"lr": 1.0, "warmup": 3}})
    with pytest.raises(ConfigError, match=r"model must be fields or a text, got 3"):
        from_json(RunConfig, {**content, "model": 3})
    with pytest.raises(ConfigError, match=r"optimizer takes fields, got 3"):
        from_json(RunConfig, {**content, "optimizer": 3})


def test_what_may_change_when_a_run_goes_on() -> None:
    stored = to_json(BASE)
    allowed = with_settings(BASE, ["n_steps=20", "evaluation.every=7", "checkpoints.keep_last=9", "parallel.tensor=2"])
    assert forbidden_changes(stored, allowed) == []
    assert forbidden_changes(stored, with_settings(BASE, ["n_epochs=2"])) == []
    other = with_settings(BASE, ["lora.rank=2", "lora.alpha=2", "clip=2"])
    assert [change.partition(" ")[0] for change in forbidden_changes(stored, other)] == ["clip", "lora"]
    assert differences({"a": 1}, {"b": 1}) == [("a", 1, None), ("b", None, 1)]


def test_recipes_are_found_and_checked(tmp_path: Path) -> None:
    for name in ("story", "story_chat", "demo_lora"):
        config = load_recipe(name)
        assert from_json(RunConfig, to_json(config)) == config
    story = load_recipe("story").model
    assert isinstance(story, ModelConfig)
    assert 2e6 <= story.n_parameters <= 4e6
    assert story.window_size == 128
    (tmp_path / "empty.py").write_text("x = 1")
    with pytest.raises(ConfigError, match=r"empty.py has no function config\(\) that returns a RunConfig"):
        load_recipe(str(tmp_path / "empty.py"))
    (tmp_path / "broken.py").write_text("def config(): return 1 / 0")
    with pytest.raises(ConfigError, match=r"broken.py failed: ZeroDivisionError"):
        load_recipe(str(tmp_path / "broken.py"))
    with pytest.raises(ConfigError, match=r"there is no recipe 'nowhere': name a file, or one of .*story"):
        load_recipe("nowhere")
    with pytest.raises(ConfigError) as caught:
        load_recipe("nowhere")
    assert "story_texts" not in str(caught.value), "what makes a recipe's data is no recipe"
    (tmp_path / "run.json").write_text(json.dumps({"config": to_json(BASE)}))
    assert load_recipe(str(tmp_path)) == BASE
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ConfigError, match=r"cannot be read as JSON"):
        load_recipe(str(tmp_path / "bad.json"))
