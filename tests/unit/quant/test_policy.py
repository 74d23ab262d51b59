"""Which weight gets how many bits, from what was asked and from what the source has."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from circius.base.config import ModelConfig
from circius.base.errors import CheckpointError, InvalidInputError
from circius.quant.policy import Decided, Recipe, make_plan
from circius.quant.quantize import write_quantized
from circius.weights import Checkpoint, open_checkpoint
from circius.weights.init import init_checkpoint
from circius.weights.names import EMBEDDING, NORM, OUTPUT
from circius.weights.save import save_model
from tests.models import random_model
from tests.unit.weights.small import SMALL

Q_PROJ, O_PROJ, DOWN = (
    f"model.layers.1.{name}.weight" for name in ("self_attn.q_proj", "self_attn.o_proj", "mlp.down_proj")
)
Source = Callable[..., Checkpoint]


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """A new checkpoint, in bfloat16 or as a quantised GGUF file."""

    def make(config: ModelConfig = SMALL, quantization: str | None = None) -> Checkpoint:
        to, name = ("gguf", "model.gguf") if quantization else ("hf", "model")
        init_checkpoint(config, tmp_path / name, to=to, quantization=quantization, overwrite=True)
        return open_checkpoint(tmp_path / name)

    return make


def decided(checkpoint: Checkpoint, recipe: Recipe) -> dict[str, Decided]:
    return {one.weight.name: one for one in make_plan(checkpoint, recipe).weights}


def forms(plan: dict[str, Decided], *names: str) -> list[tuple[int | None, int, bool]]:
    return [(plan[name].weight.bits, plan[name].weight.group, plan[name].weight.has_mins) for name in names]


def test_four_bits_by_default_and_eight_outside_of_the_layers(source: Source) -> None:
    plan = decided(source(), Recipe())
    assert forms(plan, Q_PROJ, DOWN) == [(4, 32, False)] * 2
    assert forms(plan, EMBEDDING, OUTPUT) == [(8, 32, False)] * 2
    assert (plan[NORM].weight.bits, plan[NORM].weight.dtype, plan[NORM].origin) == (None, torch.bfloat16, "plain")
    assert {one.weight.dtype for name, one in plan.items() if name != NORM and "norm" not in name} == {torch.float16}
    assert {one.origin for one in plan.values()} == {"rounded", "plain"}
    assert not plan[EMBEDDING].is_compensated
    assert plan[DOWN].is_compensated


def test_bits_of_the_whole(source: Source) -> None:
    checkpoint = source()
    for recipe, least, most in [
        (Recipe(), 4.5, 6.0),
        (Recipe(group=64), 4.25, 5.9),
        (Recipe(has_mins=True), 5.0, 6.4),
        (Recipe(bits=8), 8.5, 8.7),
    ]:
        plan = make_plan(checkpoint, recipe)
        assert least < plan.bits_per_weight < most
        assert plan.n_bytes == sum(one.weight.n_bytes for one in plan.weights)
        assert plan.origins == "23 rounded, 7 plain"


def test_patterns_go_before_everything_and_the_last_one_counts(source: Source) -> None:
    overrides = (("model.layers.1.*", 8), ("*.down_proj.weight", 16), (EMBEDDING, 4), (DOWN, "keep"))
    plan = decided(source(), Recipe(group=64, has_mins=True, overrides=overrides))
    assert forms(plan, Q_PROJ, EMBEDDING) == [(8, 32, False), (4, 64, True)]
    other = "model.layers.0.mlp.down_proj.weight"
    assert [plan[name].weight.bits for name in (DOWN, other)] == [None, None]
    assert plan["model.layers.1.input_layernorm.weight"].origin == "plain"


def test_groups_that_the_inputs_do_not_divide_into(source: Source) -> None:
    """hidden_dim 96 takes 32; 48 takes none, and stays as it is."""
    plan = make_plan(source(), Recipe(group=128))
    assert forms({one.weight.name: one for one in plan.weights}, O_PROJ, Q_PROJ, DOWN) == [
        (4, 128, False), (4, 64, False), (4, 32, False),
    ]  # fmt: skip
    assert "3 weights: 96 inputs are no multiple of 128, so its groups are of 32" in plan.notes
    odd = make_plan(source(replace(SMALL, hidden_dim=48)), Recipe())
    assert "3 weights: 48 inputs are no multiple of 32, so it stays as it is" in odd.notes
    assert {one.weight.name: one for one in odd.weights}[DOWN].weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("kind", "form"),
    [("Q4_0", (4, 32, False)), ("Q4_1", (4, 32, True)), ("Q8_0", (8, 32, False)), ("Q5_1", (8, 32, False))],
)
def test_quantised_sources_are_taken_over(source: Source, kind: str, form: tuple[int, int, bool]) -> None:
    checkpoint = source(quantization=kind)
    for recipe in (Recipe(), Recipe(bits="keep")):
        plan = decided(checkpoint, recipe)
        assert forms(plan, EMBEDDING, Q_PROJ) == [form] * 2
        assert {one.origin for one in plan.values()} == {"taken over", "plain"}
    matrix = checkpoint.read_packed(Q_PROJ)
    assert matrix is not None
    assert (matrix.matrix.bits, matrix.matrix.group, matrix.matrix.mins is not None) == form


def test_a_form_that_was_not_asked_for_is_rounded_anew(source: Source) -> None:
    checkpoint = source(quantization="Q4_1")
    assert decided(checkpoint, Recipe(bits=4))[Q_PROJ].origin == "taken over"
    assert decided(checkpoint, Recipe(bits=8))[Q_PROJ].origin == "taken over"
    for recipe, form in [
        (Recipe(bits=4, has_mins=False), (4, 32, False)), (Recipe(bits=4, group=64), (4, 64, False)),
        (Recipe(bits=4, scales=torch.bfloat16), (4, 32, False)), (Recipe(bits=8, has_mins=False), (8, 32, False)),
    ]:  # fmt: skip
        plan = decided(checkpoint, recipe)
        assert (forms(plan, Q_PROJ), plan[Q_PROJ].origin) == ([form], "rounded")
    assert decided(source(quantization="Q8_0"), Recipe(bits=4))[Q_PROJ].origin == "rounded"


def test_a_packed_source_is_taken_over(source: Source, tmp_path: Path) -> None:
    checkpoint = source()
    recipe = Recipe(bits=4, group=64, has_mins=True, scales=torch.bfloat16)
    write_quantized(checkpoint, make_plan(checkpoint, recipe), tmp_path / "packed")
    plan = decided(open_checkpoint(tmp_path / "packed"), Recipe())
    assert forms(plan, Q_PROJ, DOWN, EMBEDDING) == [(4, 64, True), (4, 32, True), (8, 32, False)]
    assert plan[Q_PROJ].weight.dtype == torch.bfloat16
    assert plan[Q_PROJ].origin == "taken over"


def test_weights_out_of_the_ordinary(tmp_path: Path) -> None:
    """Too small or too large for scales in float16, or no numbers at all."""
    model = random_model(replace(SMALL, n_layers=2)).requires_grad_(False)
    weights = dict(model.named_parameters())
    weights[Q_PROJ].mul_(1e-6)
    weights[DOWN].mul_(1e7)
    save_model(model, tmp_path / "odd")
    checkpoint = open_checkpoint(tmp_path / "odd")
    plan = decided(checkpoint, Recipe())
    assert [plan[name].weight.dtype for name in (Q_PROJ, DOWN, O_PROJ)] == [torch.bfloat16] * 2 + [torch.float16]
    with pytest.raises(InvalidInputError, match=r"down_proj\.weight holds a value of .*e.*choose bfloat16"):
        make_plan(checkpoint, Recipe(scales=torch.float16))
    for name in (O_PROJ, NORM):
        weights[name].view(-1)[3] = torch.nan
        save_model(model, tmp_path / "bad", overwrite=True)
        with pytest.raises(CheckpointError, match=f"{name} holds 1 values that are NaN"):
            make_plan(open_checkpoint(tmp_path / "bad"), Recipe())
        weights[name].view(-1)[3] = 0


def test_what_is_looked_at_is_reported(source: Source) -> None:
    checkpoint, seen = source(), list[tuple[int, int]]()
    make_plan(checkpoint, Recipe(), lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[0] == (0, checkpoint.n_bytes)


@pytest.mark.parametrize(
    ("recipe", "complaint"),
    [
        ({"bits": 5}, "bits must be 4, 8 or keep, got 5"),
        ({"group": 48}, "32, 64, 128 inputs, got 48"),
        ({"overrides": (("*", 3),)}, r"4, 8, 16 or keep, got 3 for '\*'"),
        ({"overrides": (("*layernorm*", 8),)}, r"'\*layernorm\*', which should get 8 bits, is the name of no matrix"),
        ({"overrides": (("model.layers.9.*", 8),)}, "the name of no matrix in this model"),
        ({"bits": "keep"}, "stored in bfloat16, there are no quantised weights to keep"),
    ],
)
def test_recipes_that_cannot_be_followed(source: Source, recipe: dict[str, object], complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        make_plan(source(), Recipe(**recipe))  # type: ignore[arg-type]
