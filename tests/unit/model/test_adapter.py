"""Adapters beside a model's layers: the same as changed weights, and nobody else's business."""

import copy

import pytest
import torch
from torch import Tensor

from circius.base.errors import InvalidInputError
from circius.kernels import ring_attention
from circius.model import Adapter, Transformer
from circius.model.adapter import PROJECTIONS, AdapterConfig, LowRank
from tests.adapters import random_adapter
from tests.models import random_model, random_tokens, tiny_config
from tests.packed import fully_packed_model, packable_config


def _merged(model: Transformer, adapter: Adapter) -> Transformer:
    """The model with the adapter's products added to its weights, in float64."""
    changed = copy.deepcopy(model).double()
    with torch.no_grad():
        for name, part in adapter.parts.items():
            weight: Tensor = changed.get_submodule(name).weight  # type: ignore[assignment]
            weight += adapter.config.scale * part.up.double() @ part.down.double()
    return changed


@pytest.mark.parametrize("targets", [tuple(PROJECTIONS), ("q_proj", "v_proj"), ("o_proj",), ("gate_proj", "down_proj")])
@torch.inference_mode()
def test_an_adapter_is_a_change_of_the_weights(targets: tuple[str, ...]) -> None:
    model = random_model(tiny_config(window=5))
    adapter = random_adapter(model.config, targets=targets)
    tokens = random_tokens(23)
    base = model(tokens, [11, 12])
    ours = model(tokens, [11, 12], adapters=[adapter, adapter])
    expected = _merged(model, adapter)(tokens, [11, 12])
    torch.testing.assert_close(ours.double(), expected.double(), rtol=1e-4, atol=1e-4)
    assert (ours - base).abs().max() > 0.1, "the adapter changes nothing, so the test is worth nothing"


@torch.inference_mode()
def test_every_row_has_its_own() -> None:
    model = random_model(tiny_config(window=5))
    one, two = (random_adapter(model.config, seed=seed, rank=rank) for seed, rank in ((1, 2), (2, 4)))
    tokens, lengths = random_tokens(30), [7, 5, 6, 8, 4]
    rows = [one, None, two, one, None]
    mixed = model(tokens, lengths, adapters=rows).split(lengths)
    for own, part, adapter in zip(mixed, tokens.split(lengths), rows, strict=True):
        alone = model(part, [len(part)], adapters=[adapter])
        torch.testing.assert_close(own, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not ring_attention.is_fast(), reason="bits are promised by the native kernels only")
@torch.inference_mode()
def test_no_bit_depends_on_the_neighbours_adapter() -> None:
    model = fully_packed_model(packable_config(window=5))
    one, two = (random_adapter(model.config, seed=seed, rank=rank) for seed, rank in ((1, 2), (2, 4)))
    tokens, lengths = random_tokens(30), [7, 5, 6, 8, 4]
    rows = [one, None, two, one, None]
    mixed = model(tokens, lengths, adapters=rows).split(lengths)
    for own, part, adapter in zip(mixed, tokens.split(lengths), rows, strict=True):
        assert torch.equal(own, model(part, [len(part)], adapters=[adapter]))
        assert adapter is not None or torch.equal(own, model(part, [len(part)])), "whole layers in one call differ"


@torch.inference_mode()
def test_a_models_own_adapter_is_for_all_rows_that_say_nothing() -> None:
    model = random_model(tiny_config())
    adapter = random_adapter(model.config)
    tokens = random_tokens(9)
    base, adapted = model(tokens, [9]), model(tokens, [9], adapters=[adapter])
    model.adapter = adapter
    assert torch.equal(model(tokens, [9]), adapted)
    assert torch.equal(model(tokens, [9], adapters=[None]), base)
    model.adapter = None
    assert torch.equal(model(tokens, [9]), base)


@torch.inference_mode()
def test_in_bfloat16_the_sum_is_rounded_once() -> None:
    model = random_model(tiny_config()).bfloat16()
    adapter = random_adapter(model.config)
    tokens = random_tokens(9)
    expected = _merged(model, adapter)(tokens, [9])
    ours = model(tokens, [9], adapters=[adapter])
    assert (ours - expected).abs().max() < 0.05 * expected.abs().max()


def test_an_adapter_of_another_model_is_refused() -> None:
    model = random_model(tiny_config())
    other = random_adapter(tiny_config(n_layers=3))
    with pytest.raises(InvalidInputError, match=r"a pair for model\.layers\.2.*2 layers"):
        model.adapter = other
    with pytest.raises(InvalidInputError, match="trained on another model"):
        random_adapter(tiny_config(n_kv_heads=4)).check_fits(model.config)
    with pytest.raises(InvalidInputError, match="1 adapters for 2 rows"):
        model(random_tokens(4), [2, 2], adapters=[None])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rank": 0}, "rank must be"),
        ({"rank": 2.5}, "rank must be"),
        ({"alpha": 0}, "alpha must be"),
        ({"alpha": float("nan")}, "alpha must be"),
        ({"dropout": 1}, "dropout must be"),
        ({"targets": ()}, "targets must be"),
        ({"targets": ("lm_head",)}, "targets must be"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        AdapterConfig(**{"rank": 2, "alpha": 4, **wrong})  # type: ignore[arg-type]


def test_fingerprints_tell_adapters_apart() -> None:
    config = tiny_config()
    one = random_adapter(config, seed=1)
    assert one.fingerprint == random_adapter(config, seed=1).fingerprint
    assert one.fingerprint != random_adapter(config, seed=2).fingerprint
    assert one.fingerprint != random_adapter(config, seed=1, alpha=7).fingerprint
    name, part = next(iter(one.parts.items()))
    swapped = Adapter(one.config, {**one.parts, name: LowRank(part.down, -part.up)})
    assert one.fingerprint != swapped.fingerprint
