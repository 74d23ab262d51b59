"""Names and row order: bijective, complete, and equal to their definitions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from circius.base.config import PRESETS
from circius.model import Transformer
from circius.weights.names import (
    expected_shapes,
    from_consolidated,
    from_gguf,
    half_to_interleaved,
    interleaved_to_half,
    is_rotary,
    rotary_heads,
    to_consolidated,
    to_gguf,
)
from tests.models import tiny_config
from tests.unit.weights.files import CONSOLIDATED, GGUF, interleaved, random_state, renamed


@pytest.mark.parametrize("tied", [False, True])
def test_expected_shapes_are_the_parameters_of_the_model(tied: bool) -> None:
    config = tiny_config(tied=tied)
    parameters = {name: tuple(p.shape) for name, p in Transformer(config).named_parameters()}
    assert expected_shapes(config) == parameters


def test_names_follow_the_tables_and_come_back() -> None:
    for name in expected_shapes(tiny_config()):
        assert to_consolidated(name) == renamed(name, CONSOLIDATED)
        assert to_gguf(name) == renamed(name, GGUF)
        assert from_consolidated(to_consolidated(name)) == name
        assert from_gguf(to_gguf(name)) == name


@pytest.mark.parametrize("name", ["layers.0.attention.wq.lora_A", "layers.01.attention.wq.weight", "layers..w1", ""])
def test_a_name_of_no_weight_has_no_translation(name: str) -> None:
    assert from_consolidated(name) is None
    assert from_gguf(name) is None
    with pytest.raises(KeyError, match="not the Hugging Face name"):
        to_gguf(name)


def test_q_and_k_have_heads_and_nothing_else_has() -> None:
    config = PRESETS["v0.1"]
    heads = {name: rotary_heads(name, config) for name in expected_shapes(config)}
    assert heads["model.layers.31.self_attn.q_proj.weight"] == 32
    assert heads["model.layers.0.self_attn.k_proj.weight"] == 8
    assert sum(value is not None for value in heads.values()) == 64
    assert all(is_rotary(name) == (value is not None) for name, value in heads.items())


def test_row_order_equals_its_definition() -> None:
    config = tiny_config()
    state = random_state(config)
    for name, rows in interleaved(state, config).items():
        if heads := rotary_heads(name, config):
            assert torch.equal(interleaved_to_half(rows, heads), state[name])
            assert torch.equal(half_to_interleaved(state[name], heads), rows)


@given(n_heads=st.integers(1, 5), half=st.integers(1, 6), trailing=st.lists(st.integers(1, 3), max_size=2).map(tuple))
def test_row_orders_are_each_others_inverse(n_heads: int, half: int, trailing: tuple[int, ...]) -> None:
    rows = torch.randn(n_heads * half * 2, *trailing)
    assert torch.equal(half_to_interleaved(interleaved_to_half(rows, n_heads), n_heads), rows)
    assert torch.equal(interleaved_to_half(half_to_interleaved(rows, n_heads), n_heads), rows)
    assert interleaved_to_half(rows, n_heads).is_contiguous()


def test_rows_that_are_no_heads_are_refused() -> None:
    with pytest.raises(ValueError, match="10 rows cannot be 2 heads"):
        interleaved_to_half(torch.zeros(10, 3), 2)
