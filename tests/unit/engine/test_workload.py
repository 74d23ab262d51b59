"""Counts of operations and bytes, against the matrices themselves."""

from dataclasses import replace

from circius.base.config import PRESETS
from circius.engine.workload import cache_bytes_read, operations
from circius.weights.names import expected_shapes

V01 = PRESETS["v0.1"]


def test_a_token_costs_two_operations_for_each_weight_of_its_matrices() -> None:
    matrices = {name: shape for name, shape in expected_shapes(V01).items() if len(shape) == 2}
    n_weights = sum(rows * inputs for name, (rows, inputs) in matrices.items() if name != "model.embed_tokens.weight")
    attention = 4 * V01.n_layers * V01.n_heads * V01.head_dim  # one key
    assert operations(V01, begin=0, n_tokens=1, n_logits=1) == 2 * n_weights + attention


def test_past_the_window_every_token_costs_the_same() -> None:
    costs = {operations(V01, begin=begin, n_tokens=1, n_logits=1) for begin in (4095, 4096, 100_000)}
    assert len(costs) == 1
    full = replace(V01, window_size=None)
    assert operations(full, begin=8192, n_tokens=1, n_logits=1) > operations(V01, begin=8192, n_tokens=1, n_logits=1)


def test_a_full_window_is_read_for_each_token() -> None:
    assert cache_bytes_read(V01, begin=10_000, n_tokens=3, bytes_per_value=2) == 3 * V01.cache_bytes(10_000)
    assert cache_bytes_read(V01, begin=0, n_tokens=1, bytes_per_value=2) == V01.cache_bytes(1)
