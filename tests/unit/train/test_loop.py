"""The loop's laws: how a step is cut into micro-batches does not matter; what must not be learnt from is not."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from circius import LLM
from circius.base.errors import CirciusError
from circius.text import load_tokenizer
from circius.train.config import RunConfig, SampleConfig
from circius.train.evaluation import HeldOut, evaluate
from circius.train.example import Example
from circius.train.loop import Loop, Pieces
from circius.train.metrics import MetricsFile
from circius.train.objective import LikelyText
from circius.train.optim import Optimizer
from circius.train.packing import each_once
from circius.train.recipe import with_settings
from circius.train.run import Silent, train
from circius.train.start_model import random_model
from circius.train.stream import Stream
from circius.train.text_source import TextSource
from circius.train.world import World
from tests.unit.train.runs import SHAPE, all_close, config_of, lines_of, run_in, same_bits, tensors_of, worst

CPU = World(device=torch.device("cpu"))


class Lines:
    """Examples of one length, so that batches of any size are filled to the brim, of which parts are learnt."""

    name = "lines"

    def __init__(self, n: int, length: int = 16) -> None:
        rng = np.random.default_rng(0)
        self._ids = rng.integers(3, SHAPE.vocab_size, (n, length))
        self._learnt = rng.random((n, length)) < 0.6

    def __len__(self) -> int:
        return len(self._ids)

    def n_tokens(self, index: int) -> int:
        return self._ids.shape[1]

    def example(self, index: int) -> Example:
        return Example(self._ids[index], self._learnt[index])


@dataclass
class Heard(Silent):
    """A watcher that keeps the records of steps."""

    records: list[dict[str, Any]] = field(default_factory=list)

    def stepped(self, record: dict[str, Any], n_steps: int) -> None:
        self.records.append(record)


def _pieces(config: RunConfig, folder: Path, heard: Heard, **changes: Any) -> Pieces[Any]:
    model = random_model(SHAPE, config.init, seed=0)
    stream = Stream([Lines(64)], batch_tokens=config.batch_tokens, seed=config.seed)
    held_out = HeldOut(name="held out", batches=lambda: each_once(Lines(8), config.batch_tokens))
    fields: dict[str, Any] = {
        "config": config,
        "n_steps": config.n_steps,
        "shape": SHAPE,
        "objective": LikelyText(model, z_loss=config.z_loss),
        "optimizer": Optimizer(model.named_parameters(), config.optimizer),
        "schedule": config.schedule.over(config.n_steps or 1),
        "stream": stream,
        "held_out": [held_out],
        "sampler": None,
        "world": CPU,
        "watcher": heard,
        "checkpoints": folder / "checkpoints",
        "identity": {"config": "x", "base": None},
    }
    return Pieces(**{**fields, **changes})


def _trained(data: Path, folder: Path, *settings: str, **changes: Any) -> tuple[dict[str, torch.Tensor], list[float]]:
    """The weights after a few steps, and the losses on the way."""
    config = with_settings(config_of(data, n_steps=4, seq_len=16), settings)
    heard = Heard()
    folder.mkdir(parents=True, exist_ok=True)
    pieces = _pieces(config, folder, heard, **changes)
    with MetricsFile(folder / "metrics.jsonl", offset=0) as metrics:
        Loop(pieces).run(metrics)
    weights = {name: parameter.detach() for name, parameter in pieces.objective.model.named_parameters()}
    return weights, [record["loss"] for record in heard.records]


@pytest.mark.parametrize("z_loss", [0.0, 1e-3])
def test_many_small_batches_are_one_large_one(data: Path, tmp_path: Path, z_loss: float) -> None:
    # Adam divides by the size of a gradient: with its usual eps it makes large steps of what rounding leaves of zeros.
    settings = (f"z_loss={z_loss}", "step_tokens=256", "optimizer.eps=1e-3")
    one = _trained(data, tmp_path / "1", *settings, "batch_tokens=256")
    eight = _trained(data, tmp_path / "8", *settings, "batch_tokens=32")
    assert all_close(one[1], eight[1], within=1e-6)
    assert worst(one[0], eight[0]) < 1e-6
    assert one[1][-1] < one[1][0]


def test_a_step_without_a_number_is_not_taken(data: Path, tmp_path: Path) -> None:
    """The third step's gradient is infinite: its weights are those of the second, and the run goes on."""

    class Breaking(LikelyText):
        n_calls = 0

        def forward(self, batch: Any) -> Any:
            summed = super().forward(batch)
            Breaking.n_calls += self.training
            return summed._replace(total=summed.total * math.inf) if Breaking.n_calls == 3 else summed

    model = random_model(SHAPE, config_of(data).init, seed=0)
    optimizer = Optimizer(model.named_parameters(), config_of(data).optimizer)
    settings = ("batch_tokens=64", "step_tokens=64", "evaluation.every=100")
    _trained(data, tmp_path, *settings, objective=Breaking(model), optimizer=optimizer)
    lines = lines_of(tmp_path, "train")
    assert [line.get("skipped", False) for line in lines] == [False, False, True, False]
    assert optimizer.n_steps == 3
    assert all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())
    assert not isinstance(lines[2]["grad_norm"], float), "JSON has no infinity: it is written as text"


def test_it_gives_up_where_no_step_can_be_taken(data: Path, tmp_path: Path) -> None:
    model = random_model(SHAPE, config_of(data).init, seed=0)
    with torch.no_grad():
        model.model.norm.weight.fill_(math.nan)
    optimizer = Optimizer(model.named_parameters(), config_of(data).optimizer)
    with pytest.raises(CirciusError, match=r"20 steps in a row were skipped"):
        _trained(data, tmp_path, "n_steps=30", objective=LikelyText(model), optimizer=optimizer)


def test_an_evaluation_is_the_mean_over_all_learnt_tokens() -> None:
    """However it is cut into batches, and without a trace in the model."""
    model = random_model(SHAPE, config_of(Path()).init, seed=1)
    objective = LikelyText(model).train()
    source = Lines(9)
    results = [
        evaluate(objective, HeldOut(name="x", batches=lambda size=size: each_once(source, size)), CPU)
        for size in (16, 50, 1000)
    ]
    nll = n = 0.0
    for index in range(len(source)):
        example = source.example(index)
        logits = model(torch.from_numpy(example.ids), [len(example)]).detach()
        own = torch.log_softmax(logits, -1)[:-1].gather(1, torch.from_numpy(example.ids)[1:, None])[:, 0]
        nll -= float(own[torch.from_numpy(example.learnt)[1:]].double().sum())
        n += example.n_learnt
    for result in results:
        assert result.n == n
        assert result.loss == pytest.approx(nll / n, rel=1e-6)
        assert result.record(per_token=True)["perplexity"] == pytest.approx(math.exp(nll / n), rel=1e-5)
    assert objective.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_held_out_shards_are_told_in_bits_per_byte(data: Path, whole: Path) -> None:
    """Every id of a byte tokenizer is a byte, but for the end of each document, which costs bits and adds no byte."""
    source = TextSource(data / "shards", load_tokenizer(data / "tok"), seq_len=64, part="heldout")
    n_bytes = sum(source.n_bytes(index) for index in range(len(source)))
    [line, *_] = lines_of(whole, "eval")
    assert line["n"] == n_bytes + source.n_documents
    assert line["bits_per_byte"] == pytest.approx(line["loss"] / math.log(2) * line["n"] / n_bytes)


def test_it_ends_early_when_evaluations_gain_too_little_and_exports_the_best(data: Path, tmp_path: Path) -> None:
    """No evaluation is better than the first after a step by as much as is asked for: two later it ends, with the
    weights of that one."""
    watching = ["evaluation.every=2", "evaluation.patience=2", "evaluation.least_gain=3"]
    keeping = ["checkpoints.keep_best=true", "checkpoints.export=best", "checkpoints.keep_last=1"]
    settings = ["schedule.kind=constant", "schedule.warmup=0", *watching, *keeping]
    finished = run_in(data, tmp_path / "run", *settings)
    evals = lines_of(tmp_path / "run", "eval")
    assert [line["step"] for line in evals] == [0, 2, 4, 6]
    assert (finished.outcome.step, finished.outcome.has_stalled) == (6, True)
    assert finished.best_loss == evals[1]["loss"] > evals[3]["loss"]
    run_in(data, tmp_path / "short", "n_steps=2", "schedule.kind=constant", "schedule.warmup=0")
    assert same_bits(tensors_of(tmp_path / "run" / "model"), tensors_of(tmp_path / "short" / "model"))
    assert run_in(data, tmp_path / "run", *settings).outcome.step == 6, "and it stays ended"


def test_the_product_is_the_model_that_was_evaluated(data: Path, whole: Path) -> None:
    """Exported, loaded by the engine, and asked for the loss of what was held out."""
    llm = LLM(whole / "model", dtype="float32", device="cpu")
    assert llm.tokenizer is not None
    source = TextSource(data / "shards", llm.tokenizer, seq_len=64, part="heldout")
    held_out = HeldOut(name="x", batches=lambda: each_once(source, 256))
    loss = evaluate(LikelyText(llm.model), held_out, CPU).loss
    assert loss == pytest.approx(lines_of(whole, "eval")[-1]["loss"], rel=1e-6)


def test_samples_disturb_nothing(data: Path, tmp_path: Path, whole: Path) -> None:
    samples = SampleConfig(prompts=("The wind", "Story"), every=4, max_tokens=5)
    config = replace(config_of(data), n_steps=8, samples=samples, schedule=replace(config_of(data).schedule, warmup=1))
    train(config, tmp_path / "with")
    train(replace(config, samples=SampleConfig()), tmp_path / "without")
    assert same_bits(tensors_of(tmp_path / "with" / "model"), tensors_of(tmp_path / "without" / "model"))
    said = lines_of(tmp_path / "with", "sample")
    assert [(line["step"], line["prompt"], line["how"]) for line in said] == [
        (step, prompt, how)
        for step in (4, 8)
        for how in ("greedy", "temperature 0.8")
        for prompt in ("The wind", "Story")
    ]
