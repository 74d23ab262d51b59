"""The estimate of what a run takes, against published sums and against what is really kept."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from circius.base.config import PRESETS, ModelConfig
from circius.base.errors import InvalidInputError
from circius.model.adapter import AdapterConfig
from circius.train.batch import Batch
from circius.train.config import RunConfig, SourceConfig
from circius.train.forward import recompute_blocks
from circius.train.length import measure_length
from circius.train.lora import add_lora
from circius.train.memory import activation_bytes, memory_parts
from circius.train.objective import LikelyText
from circius.train.optim import Optimizer, OptimizerConfig
from circius.train.plan import Plan, estimate
from circius.train.prepared import prepare
from circius.train.recipe import with_settings
from circius.train.run import plan_run
from circius.train.start_model import random_model
from circius.train.stream import Stream
from circius.train.world import World
from tests.unit.train.runs import SHAPE, config_of
from tests.unit.train.test_loop import Lines

SEVEN = PRESETS["v0.1"]
BASE = RunConfig(
    kind="finetune", model="m", sources=(SourceConfig(path="x"),), seq_len=4096, batch_tokens=4096, n_steps=10
)
NARROW = replace(BASE, dtype="bfloat16")
LORA = AdapterConfig(rank=64, alpha=128)


@dataclass
class Counts:
    n_examples: int = 1000
    n_tokens: int = 1_000_000


def _held(config: RunConfig, *names: str) -> float:
    """In GB, what those parts of the memory take for a 7B model."""
    parts = memory_parts(SEVEN, config)
    return sum(parts[name] for name in names or ("weights", "float32 copies", "gradients", "optimiser")) / 1e9


def test_published_sums_for_seven_billion_parameters() -> None:
    """training.md 4.4. Ours add up gradients in float32, so that mixed precision takes 18 bytes a parameter, not 16."""
    n = SEVEN.n_parameters / 1e9
    assert _held(NARROW, "weights") == pytest.approx(14.5, abs=0.05)
    assert _held(BASE) == pytest.approx(16 * n)
    assert _held(NARROW) == pytest.approx(18 * n)
    eight_bit = replace(NARROW, optimizer=OptimizerConfig(lr=1.0, kind="adamw8bit"))
    assert _held(eight_bit) == pytest.approx(12 * n)
    lora = replace(NARROW, lora=LORA)
    assert memory_parts(SEVEN, lora)["gradients"] == 4 * 167_772_160
    assert _held(lora) == pytest.approx(14.5 + 2.7, abs=0.05)
    nf4 = replace(lora, quantize="nf4")
    assert _held(nf4, "weights") - 4 * 0.168 == pytest.approx(4.1, abs=0.1)
    muon = replace(BASE, optimizer=OptimizerConfig(lr=1.0, kind="muon"))
    assert 12 * n < _held(muon) < 13 * n


def test_what_is_spread_over_processes_is_divided() -> None:
    spread = with_settings(BASE, ["parallel.sharing=shards"])
    assert memory_parts(SEVEN, spread, n_data=8)["optimiser"] == memory_parts(SEVEN, BASE)["optimiser"] / 8
    assert memory_parts(SEVEN, BASE, n_data=8) == memory_parts(SEVEN, BASE)


@pytest.mark.parametrize("settings", [[], ["recompute=true"], ["dtype=bfloat16"], ["lora.rank=4", "lora.alpha=8"]])
def test_activations_are_what_autograd_keeps(settings: list[str]) -> None:
    """Counted with torch's own hooks in a model no two of whose axes are alike, weights left aside."""
    shape = ModelConfig(
        dim=96, n_layers=3, head_dim=24, hidden_dim=200, n_heads=6, n_kv_heads=2, vocab_size=300, context_len=512,
        window_size=64,
    )  # fmt: skip
    config = with_settings(replace(BASE, seq_len=128, batch_tokens=512), settings)
    model = random_model(shape, config.init, seed=0)
    model.to(torch.bfloat16 if config.dtype == "bfloat16" else torch.float32)
    if config.lora is not None:
        add_lora(model, config.lora)
    recompute_blocks(model, config.recompute)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    tokens = torch.arange(512) % shape.vocab_size
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model.hidden(tokens, [128] * 4)
    assert hidden.requires_grad
    once = 2 * hidden.nbytes  # beside what is kept: what comes out, and its gradient
    if config.recompute:  # one layer at a time is computed again, and kept whole
        whole = replace(config, recompute=False)
        once += activation_bytes(shape, whole) - activation_bytes(replace(shape, n_layers=2), whole)
    assert sum(kept.values()) == pytest.approx(activation_bytes(shape, config) - once, rel=0.1)


def test_what_does_not_fit_is_refused_with_what_would_help() -> None:
    plan = estimate(Counts(), BASE, shape=SEVEN)
    plan.check(2**40, BASE)
    with pytest.raises(InvalidInputError) as caught:
        plan.check(24 * 2**30, BASE)
    said = str(caught.value)
    assert "the run needs about" in said
    assert "weights 26.98 GiB" in said
    assert "24.00 GiB are free: try an adapter (--lora); or dtype=bfloat16" in said
    long = replace(NARROW, lora=LORA, quantize="nf4", seq_len=32768, batch_tokens=65536)
    with pytest.raises(InvalidInputError, match=r"try recompute=true; or a batch_tokens nearer to seq_len \(32768\)"):
        estimate(Counts(), long, shape=SEVEN).check(24 * 2**30, long)


def test_steps_and_time_from_counts_alone() -> None:
    """What `circius data check` knows."""
    plan = estimate(Counts(), replace(BASE, n_steps=None, n_epochs=2.0), shape=SEVEN, tokens_per_s=5000.0)
    assert (plan.n_steps, plan.n_tokens, plan.tokens_per_step) == (489, 489 * 4096, 4096)
    assert plan.seconds == pytest.approx(489 * 4096 / 5000)
    assert dict(plan.lines())["time"] == "about 7 min, at 5,000 tok/s"
    assert dict(plan.lines())["steps"] == "489 of about 4,096 tokens"
    assert estimate(Counts(), replace(BASE, n_steps=None, n_tokens=10**6), shape=SEVEN).n_steps == 245
    assert isinstance(estimate(Counts(), replace(BASE, kind="pretrain", model=SHAPE)), Plan), "the shape is in there"


def test_a_rate_far_from_the_usual_is_told() -> None:
    said = estimate(Counts(), with_settings(replace(BASE, lora=LORA), ["lr=0.5"]), shape=SEVEN).notes
    assert said == ["the learning rate 0.5 is far from the 0.0001 to 0.0003 that an adapter usually takes"]
    assert not estimate(Counts(), with_settings(BASE, ["lr=2e-5"]), shape=SEVEN).notes


@pytest.mark.parametrize("length", [16, 11])
def test_an_epoch_is_every_example_once(length: int) -> None:
    """Eleven tokens leave the end of each batch empty, which counts."""
    config = with_settings(replace(BASE, seq_len=16, batch_tokens=64, step_tokens=128), ["n_epochs=2"])
    source = Lines(30, length)

    def stream() -> Stream:
        return Stream([source], batch_tokens=64)

    found = measure_length(config, stream(), {"lines": float(length)})
    walked = stream()
    n_steps = 0
    while walked.epochs["lines"] < 2:
        walked.next(2, ())
        n_steps += 1
    assert found.n_steps == n_steps
    assert found.tokens_per_step == 2 * (64 // length) * length
    by_tokens = measure_length(with_settings(config, ["n_tokens=1000"]), stream(), {"lines": float(length)})
    assert by_tokens.n_steps == -(-1000 // (2 * (64 // length) * length))


def test_a_plan_of_a_real_run_and_its_speed(data: Path) -> None:
    prepared = plan_run(config_of(data), probes=True)
    assert prepared.plan.n_parameters == prepared.plan.n_trained == SHAPE.n_parameters
    assert prepared.plan.tokens_per_s is not None
    assert prepared.plan.tokens_per_s > 0
    assert [counts.role for counts in prepared.inputs.counts] == ["train", "held out"]


def test_memory_that_is_planned_is_memory_that_is_taken(data: Path) -> None:
    """The parts that can be counted exactly, in the real model and optimiser."""
    for settings in ([], ["dtype=bfloat16"], ["optimizer.kind=muon"]):
        config = with_settings(config_of(data), settings)
        parts = prepare(config, World(device=torch.device("cpu"))).plan.memory
        model = random_model(SHAPE, config.init, seed=0)
        model.to(torch.bfloat16 if config.dtype == "bfloat16" else torch.float32)
        optimizer = Optimizer(model.named_parameters(), config.optimizer)
        LikelyText(model)(Batch(torch.arange(64), [64], torch.arange(64))).total.backward()
        state = {name: tensor for name, tensor in optimizer.state_dict().items() if name != "n_steps"}
        masters = sum(tensor.nbytes for name, tensor in state.items() if name.startswith("master."))
        assert parts["weights"] == sum(parameter.nbytes for parameter in model.parameters())
        assert parts["float32 copies"] == masters
        assert parts["gradients"] == sum(gradient.nbytes for gradient in optimizer.gradients())
        assert parts["optimiser"] == sum(tensor.nbytes for tensor in state.values()) - masters
