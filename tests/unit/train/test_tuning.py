"""Fine-tuning and DPO from end to end, on a tiny model: all weights, adapters, adapters beside weights in few bits."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from circius import LLM, SamplingParams
from circius.base.config import ModelConfig
from circius.base.errors import CheckpointError, CirciusError, ConfigError, InvalidInputError
from circius.model.adapter import AdapterConfig
from circius.text import load_tokenizer, write_byte_tokenizer
from circius.train.config import RunConfig, SourceConfig
from circius.train.dpo import PreferenceConfig
from circius.train.optim import OptimizerConfig
from circius.train.recipe import with_settings
from circius.train.run import plan_run, train
from circius.weights.adapter import read_adapter
from circius.weights.init import init_checkpoint
from tests.unit.train.runs import config_of, lines_of, losses_of, same_bits, tensors_of

SHAPE = ModelConfig(
    dim=64,
    n_layers=2,
    head_dim=16,
    hidden_dim=128,
    n_heads=4,
    n_kv_heads=2,
    vocab_size=259,
    context_len=256,
    window_size=32,
)
LORA = AdapterConfig(rank=4, alpha=8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights with a tokenizer of bytes."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    init_checkpoint(SHAPE, folder, dtype=torch.float32, extra=write_byte_tokenizer)
    return folder


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "chats.jsonl"
    _write(file, [_chat(f"Say {n}.", f"Yes: {n}!") for n in range(30)])
    return file


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    _write(file, [{"prompt": f"Say {n}.", "chosen": f"Yes: {n}!", "rejected": f"No, never {n}."} for n in range(24)])
    return file


def _chat(asked: str, answered: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]}


def _write(file: Path, records: list[Any]) -> None:
    file.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")


def _config(model: Path, data: Path, *settings: str, **changes: Any) -> RunConfig:
    config = RunConfig(
        kind="finetune",
        model=str(model),
        sources=(SourceConfig(path=str(data)),),
        template="v1",
        seq_len=64,
        batch_tokens=256,
        n_steps=12,
        optimizer=OptimizerConfig(lr=1e-2),
    )
    return with_settings(replace(config, **changes), ["evaluation.share=0.1", "evaluation.every=6", *settings])


def test_all_weights_learn_to_answer_and_the_model_knows_its_template(model: Path, chats: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    finished = train(_config(model, chats, "n_steps=60", 'samples.prompts=["Say 3."]'), run)
    assert losses_of(run)[-1] < 0.5 < 4 < losses_of(run)[0]
    assert finished.product == run / "model"
    llm = LLM(run / "model", device="cpu")
    assert llm.chat_template is not None
    assert (llm.chat_template.name, llm.chat_template.is_shipped) == ("v1", True)
    [answer] = llm.chat([{"role": "user", "content": "Say 3."}], SamplingParams(temperature=0, max_tokens=20))
    assert answer.outputs[0].text.strip().startswith("Yes")
    assert answer.outputs[0].finish_reason == "stop", "it has learnt to end"
    [*_, said] = (line for line in lines_of(run, "sample") if line["how"] == "greedy")
    assert said["text"] == answer.outputs[0].text, "what the run showed is what the model says"
    assert lines_of(run, "eval")[-1]["bits_per_byte"] > 0


@pytest.mark.parametrize("quantize", [None, "nf4", "int4"])
def test_an_adapter_learns_beside_weights_that_stay(
    model: Path, chats: Path, tmp_path: Path, quantize: str | None
) -> None:
    run = tmp_path / "run"
    before = (model / "model.safetensors").read_bytes()
    settings = ["n_steps=20", 'samples.prompts=["Say 1."]', "samples.max_tokens=4"]
    config = _config(model, chats, *settings, lora=LORA, quantize=quantize)
    finished = train(config, run)
    assert finished.product == run / "adapter"
    assert losses_of(run)[-1] < losses_of(run)[0] - 0.5
    adapter = read_adapter(run / "adapter", SHAPE)
    assert (adapter.config.rank, adapter.config.base_model) == (4, str(model))
    assert (model / "model.safetensors").read_bytes() == before
    assert len(lines_of(run, "sample")) == 2
    [checkpoint, *_] = sorted((run / "checkpoints").glob("step-*"))
    size = sum(file.stat().st_size for file in checkpoint.rglob("*.safetensors"))
    assert size < 5 * adapter.n_bytes, "checkpoints hold what is trained, not what it stands beside"


def test_an_adapter_goes_on_to_the_same_bits_but_not_beside_other_weights(
    model: Path, chats: Path, tmp_path: Path
) -> None:
    """With dropout, so that random numbers must go on as well."""
    own = tmp_path / "model"
    own.mkdir()
    for file in model.iterdir():
        (own / file.name).write_bytes(file.read_bytes())
    lora = replace(LORA, dropout=0.3)
    settings = ["schedule.kind=constant", "checkpoints.every=3"]
    train(_config(own, chats, *settings, "n_steps=6", lora=lora), tmp_path / "whole")
    train(_config(own, chats, *settings, "n_steps=3", lora=lora), tmp_path / "run")
    train(_config(own, chats, *settings, "n_steps=6", lora=lora), tmp_path / "run")
    assert same_bits(tensors_of(tmp_path / "whole" / "adapter"), tensors_of(tmp_path / "run" / "adapter"))
    init_checkpoint(SHAPE, own, dtype=torch.float32, seed=9, extra=write_byte_tokenizer, overwrite=True)
    with pytest.raises(CheckpointError, match=r"are not those that .* was trained beside"):
        train(_config(own, chats, *settings, "n_steps=9", lora=lora), tmp_path / "run")


@pytest.mark.parametrize("lora", [None, LORA])
def test_preferences_are_learnt_and_go_on_after_a_stop(
    model: Path, pairs: Path, tmp_path: Path, lora: AdapterConfig | None
) -> None:
    settings = ["lr=1e-3", "schedule.kind=constant", "checkpoints.every=4"]
    changes: dict[str, Any] = {"kind": "dpo", "lora": lora, "preference": PreferenceConfig(beta=0.5)}
    whole, run = tmp_path / "whole", tmp_path / "run"
    train(_config(model, pairs, *settings, "n_steps=8", **changes), whole)
    lines = lines_of(whole, "train")
    assert lines[0]["loss"] == pytest.approx(0.6931, abs=1e-3), "policy and reference begin as one"
    assert lines[0]["margin"] == pytest.approx(0, abs=1e-4)
    assert lines[-1]["loss"] < 0.5
    assert lines[-1]["accuracy"] == 1
    assert lines[-1]["margin"] == pytest.approx(lines[-1]["reward_chosen"] - lines[-1]["reward_rejected"], abs=1e-5)
    assert lines_of(whole, "eval")[-1]["accuracy"] == 1
    assert "perplexity" not in lines_of(whole, "eval")[-1], "a loss a pair is none of tokens"
    assert len(list(whole.glob("reference-*.safetensors"))) == 1
    train(_config(model, pairs, *settings, "n_steps=4", **changes), run)
    train(_config(model, pairs, *settings, "n_steps=8", **changes), run)
    assert lines_of(run, "train") == lines
    product = "model" if lora is None else "adapter"
    assert same_bits(tensors_of(run / product), tensors_of(whole / product))


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([], "no conversation|nothing|empty"),
        ([{"messages": [{"role": "user", "content": "Hi"}]}], r"chats.jsonl:1: "),
        ([{"messages": [{"role": "wizard", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]}], "wizard"),
        ([_chat("Hi", "Yo"), {"text": "Hi"}], r"chats.jsonl:2: "),
        ([_chat("Hi", "Yo"), _chat("Hi", "")], r"chats.jsonl:2: "),
    ],
)
def test_bad_data_are_told_before_anything_is_loaded(
    model: Path, tmp_path: Path, records: list[Any], said: str
) -> None:
    _write(tmp_path / "chats.jsonl", records)
    with pytest.raises(CirciusError, match=said):
        train(_config(model, tmp_path / "chats.jsonl"), tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_what_else_is_told_before(model: Path, chats: Path, pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"no such file or folder"):
        plan_run(_config(model, tmp_path / "nothing.jsonl"), probes=False)
    with pytest.raises(CirciusError, match=r"have more than 8 tokens"):
        plan_run(_config(model, chats, "seq_len=8"), probes=False)
    with pytest.raises(InvalidInputError, match=r"an answer that with its prompt is longer than 8 tokens"):
        plan_run(_config(model, pairs, "seq_len=8", kind="dpo"), probes=False)
    _write(tmp_path / "one.jsonl", [_chat("Hi", "Yo")])
    with pytest.raises(ConfigError, match=r"would leave nothing of the 1 examples"):
        plan_run(_config(model, tmp_path / "one.jsonl"), probes=False)
    with pytest.raises(ConfigError, match=r"evaluation.patience needs something that is not trained on"):
        plan_run(_config(model, chats, "evaluation.share=0", "evaluation.patience=1"), probes=False)
    with pytest.raises(CirciusError, match=r"pre-training reads folders of token shards"):
        plan_run(_config(model, chats, kind="pretrain"), probes=False)
    with pytest.raises(CirciusError, match=r"context"):
        train(_config(model, chats, f'samples.prompts=["{"x" * 300}"]'), tmp_path / "long")


def test_the_same_examples_are_held_out_every_time(model: Path, chats: Path) -> None:
    prepared = [plan_run(_config(model, chats), probes=False) for _ in range(2)]
    held_out = [[batch.tokens.tolist() for batch in one.inputs.held_out[0].batches()] for one in prepared]
    assert held_out[0] == held_out[1]
    [train_counts, held_counts] = prepared[0].inputs.counts
    assert (train_counts.n_examples, held_counts.n_examples) == (27, 3)


def test_a_conversation_is_held_out_whole(model: Path, tmp_path: Path) -> None:
    """Too long ones become several examples, and none of them is trained on while another one is held out."""
    long = [[message for turn in range(8) for message in _chat(f"{n}?{turn}", "x" * 20)["messages"]] for n in range(20)]
    _write(tmp_path / "long.jsonl", [{"messages": messages} for messages in long])
    config = _config(model, tmp_path / "long.jsonl", "too_long=split", "evaluation.share=0.2")
    inputs = plan_run(config, probes=False).inputs
    tokenizer = load_tokenizer(model)
    heard = [
        {int(n) for batch in batches for n in re.findall(r"(\d+)\?", tokenizer.decode(batch.tokens.tolist()))}
        for batches in (inputs.held_out[0].batches(), inputs.new_stream().next(60))
    ]
    assert len(heard[0]) == 4
    assert heard[0] | heard[1] == set(range(20))
    assert not heard[0] & heard[1]


def test_what_is_left_out_of_held_out_files_is_told(model: Path, chats: Path, pairs: Path, tmp_path: Path) -> None:
    _write(tmp_path / "chats.jsonl", [_chat("Hi", "Yo"), _chat("Hi", "x" * 200)])
    _write(tmp_path / "pairs.jsonl", [{"prompt": "a", "chosen": "b", "rejected": c} for c in ("c", "c" * 200)])
    for kind, data, own in (("finetune", chats, "chats.jsonl"), ("dpo", pairs, "pairs.jsonl")):
        sources = (SourceConfig(path=str(tmp_path / own)),)
        config = _config(model, data, "too_long=drop", kind=kind)
        notes = plan_run(replace(config, evaluation=replace(config.evaluation, sources=sources)), probes=False).notes
        assert any(note.startswith(f"{own}: 1 of 2 ") and note.endswith("left out") for note in notes)


def test_shards_need_no_template_and_may_be_at_home(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "model"
    init_checkpoint(SHAPE, own, dtype=torch.float32, extra=lambda folder: write_byte_tokenizer(folder))
    monkeypatch.setenv("HOME", str(data))
    config = replace(_config(own, Path("~/shards")), template="auto")
    prepared = plan_run(config, probes=False)
    assert prepared.template is None
    assert [counts.role for counts in prepared.inputs.counts] == ["train", "held out"]
    with pytest.raises(CirciusError, match=r"has no chat template"):
        plan_run(with_settings(config, ['samples.prompts=["Hi"]']), probes=False)


def test_a_folder_is_read_as_data_check_reads_it(model: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "more").mkdir(parents=True)
    _write(tmp_path / "data" / "a.jsonl", [_chat("Hi", "Yo")] * 10)
    _write(tmp_path / "data" / "more" / "b.jsonl", [_chat("Hi", "Yes")] * 10)
    (tmp_path / "data" / ".DS_Store").write_bytes(b"\x00\x01")
    inputs = plan_run(_config(model, tmp_path / "data", "evaluation.share=0"), probes=False).inputs
    assert inputs.n_examples == 20


def test_a_preference_run_does_not_go_on_from_another_reference(model: Path, pairs: Path, tmp_path: Path) -> None:
    own = tmp_path / "model"
    shutil.copytree(model, own)
    settings = ["schedule.kind=constant", "checkpoints.every=2"]
    train(_config(own, pairs, *settings, "n_steps=2", kind="dpo"), tmp_path / "run")
    init_checkpoint(SHAPE, own, dtype=torch.float32, seed=9, extra=write_byte_tokenizer, overwrite=True)
    with pytest.raises(CheckpointError, match=r"are not those that"):
        train(_config(own, pairs, *settings, "n_steps=4", kind="dpo"), tmp_path / "run")


def test_random_weights_have_a_context_as_long_as_what_they_read(data: Path) -> None:
    config = with_settings(config_of(data), ["seq_len=256"])
    with pytest.raises(ConfigError, match=r"seq_len is 256, .* has a context_len of 128"):
        plan_run(config, probes=False)


def test_a_plan_with_a_probe_of_a_preference_run_asks_no_reference(model: Path, pairs: Path) -> None:
    plan = plan_run(_config(model, pairs, kind="dpo", lora=LORA), probes=True).plan
    assert plan.seconds is not None
