"""The whole way: from a checkpoint of any kind to a packed one that answers like it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from circius.base.config import ModelConfig
from circius.base.errors import InvalidInputError, StorageError
from circius.model import Transformer
from circius.quant.policy import Recipe, make_plan
from circius.quant.quantize import write_quantized
from circius.quant.rounding import round_matrix
from circius.weights import Checkpoint, load_model, open_checkpoint
from circius.weights.init import init_checkpoint
from circius.weights.save import save_model
from tests.models import random_tokens
from tests.unit.weights.small import SMALL, random_model

TIED = replace(SMALL, tied_output=True)


def saved(folder: Path, config: ModelConfig = SMALL, dtype: torch.dtype = torch.float32) -> Checkpoint:
    save_model(random_model(config, dtype), folder)
    return open_checkpoint(folder)


def log_probs(model: Transformer, tokens: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(tokens, [len(tokens)]).log_softmax(-1)


@pytest.mark.parametrize("config", [SMALL, TIED], ids=["untied", "tied"])
def test_streaming_is_rounding_each_weight(tmp_path: Path, config: ModelConfig) -> None:
    checkpoint = saved(tmp_path / "source", config)
    plan = make_plan(checkpoint, Recipe(overrides=(("*.1.mlp.*", 8), ("*.2.mlp.up*", 16))))
    done = write_quantized(checkpoint, plan, tmp_path / "target")
    written, model = open_checkpoint(tmp_path / "target"), random_model(config)
    assert written.config == config
    errors = {error.name: error for error in done.errors}
    for decided in plan.weights:
        name, weight = decided.weight.name, model.get_parameter(decided.weight.name)
        packed = written.read_packed(name)
        if packed is None:
            assert written.read(name).equal(weight.to(decided.weight.dtype))
            assert name not in errors
            continue
        expected = round_matrix(weight, decided.grid)
        assert packed.matrix.codes.equal(expected.matrix.codes)
        assert packed.matrix.scales.equal(expected.matrix.scales)
        assert errors[name].relative == pytest.approx((expected.squared_error / expected.squared_norm) ** 0.5)
        assert errors[name].bits == decided.weight.bits
    assert done.worst == max(done.errors, key=lambda error: error.relative)
    assert min(errors.values(), key=lambda e: e.relative).relative < done.mean < done.worst.relative
    assert done.written.n_bytes == plan.n_bytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_model_answers_nearly_like_its_source(tmp_path: Path, dtype: torch.dtype) -> None:
    checkpoint, tokens = saved(tmp_path / "source", dtype=dtype), random_tokens(40, SMALL.vocab_size)
    exact = log_probs(load_model(checkpoint, dtype=torch.float32), tokens)
    distances = []
    for bits in (8, 4):
        write_quantized(checkpoint, make_plan(checkpoint, Recipe(bits=bits)), tmp_path / f"{bits}")
        found = log_probs(load_model(tmp_path / f"{bits}", activations="float"), tokens)
        distances.append(float((exact.exp() * (exact - found)).sum(-1).mean()))
    assert 0 < 20 * distances[0] < distances[1] < 0.5


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_gguf_blocks_keep_every_value(tmp_path: Path, kind: str) -> None:
    init_checkpoint(SMALL, tmp_path / "model.gguf", to="gguf", quantization=kind)
    checkpoint = open_checkpoint(tmp_path / "model.gguf")
    done = write_quantized(checkpoint, make_plan(checkpoint, Recipe()), tmp_path / "packed")
    assert done.worst is not None
    assert done.worst.relative == 0
    written = open_checkpoint(tmp_path / "packed")
    for name in checkpoint.names():
        assert written.read(name).float().equal(checkpoint.read(name)), name


def test_blocks_that_are_no_packed_matrix_are_rounded_and_told(tmp_path: Path) -> None:
    init_checkpoint(SMALL, tmp_path / "model.gguf", to="gguf", quantization="Q5_1")
    checkpoint = open_checkpoint(tmp_path / "model.gguf")
    plan = make_plan(checkpoint, Recipe())
    done = write_quantized(checkpoint, plan, tmp_path / "packed")
    assert plan.notes == ("23 weights: Q5_1 has no exact packed form, so it is rounded to 8 bits",)
    assert 0 < done.mean < 0.01


def test_compensation_brings_the_outputs_nearer(tmp_path: Path) -> None:
    """On the calibration's own kind of text, in which some tokens are far more frequent than others."""
    checkpoint = saved(tmp_path / "source", replace(SMALL, window_size=None))
    generator = torch.Generator().manual_seed(3)
    rows = torch.multinomial(torch.arange(1.0, 102).pow(-1.5), 60 * 64, replacement=True, generator=generator).view(
        60, 64
    )
    exact = load_model(checkpoint)
    plan = make_plan(checkpoint, Recipe())
    distances = []
    for calibration in (rows[:50].tolist(), None):
        target = tmp_path / ("nearest" if calibration is None else "gptq")
        done = write_quantized(checkpoint, plan, target, calibration=calibration)
        assert {error.name for error in done.errors} == {one.weight.name for one in plan.weights if one.weight.bits}
        model = load_model(target, activations="float")
        found = torch.stack([log_probs(model, row) for row in rows[50:]])
        known = torch.stack([log_probs(exact, row) for row in rows[50:]])
        distances.append(float((known.exp() * (known - found)).sum(-1).mean()))
    assert distances[0] < 0.8 * distances[1]


def test_calibration_leaves_alone_what_has_other_bits(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "source")
    rows = [random_tokens(20, SMALL.vocab_size, seed).tolist() for seed in range(4)]
    plan = make_plan(checkpoint, Recipe(overrides=(("*q_proj*", 8), ("*.0.*", 8), ("*up_proj*", 16))))
    for name, calibration in (("gptq", rows), ("nearest", None)):
        write_quantized(checkpoint, plan, tmp_path / name, calibration=calibration)
    one, other = open_checkpoint(tmp_path / "gptq"), open_checkpoint(tmp_path / "nearest")
    differing = [
        decided for decided in plan.weights if not one.read(decided.weight.name).equal(other.read(decided.weight.name))
    ]
    assert differing == [decided for decided in plan.weights if decided.is_compensated]
    assert '"method": "gptq"' in (tmp_path / "gptq" / "config.json").read_text()


def test_progress_ends_at_the_whole(tmp_path: Path) -> None:
    checkpoint, seen = saved(tmp_path / "source"), list[tuple[int, int, str]]()
    plan = make_plan(checkpoint, Recipe())
    write_quantized(checkpoint, plan, tmp_path / "target", on_progress=lambda *told: seen.append(told))
    assert seen == sorted(seen, key=lambda told: told[0])
    assert seen[-1][0] == seen[-1][1] == sum(one.weight.n_bytes for one in plan.weights if one.weight.bits)
    assert seen[0][2] == "model.embed_tokens.weight"


def test_nothing_is_left_of_a_broken_run(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "source")
    plan = make_plan(checkpoint, Recipe())

    def stop(done: int, total: int, name: str) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_quantized(checkpoint, plan, tmp_path / "target", on_progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_targets_in_the_way(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "source")
    plan = make_plan(checkpoint, Recipe())
    for target in (tmp_path / "source", tmp_path / "source" / "inside"):
        with pytest.raises(InvalidInputError, match="choose another target"):
            write_quantized(checkpoint, plan, target, overwrite=True)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "config.json").write_text("{}")
    with pytest.raises(StorageError, match="exists already"):
        write_quantized(checkpoint, plan, tmp_path / "there")
    write_quantized(checkpoint, plan, tmp_path / "there", overwrite=True)
    assert open_checkpoint(tmp_path / "there").is_packed
