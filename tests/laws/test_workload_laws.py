"""Laws of counting: what a text costs is what its tokens cost, however it is cut, and every key counts once."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from circius.base.config import PRESETS, ModelConfig, Window
from circius.engine.workload import cache_bytes_read, keys_seen, operations
from circius.model.window import visible

WINDOWS = st.none() | st.integers(1, 20)
LENGTHS = st.integers(0, 40)


def mixed(first: Window, second: Window) -> ModelConfig:
    return replace(PRESETS["v0.1"], n_layers=2, window_size=(first, second))


@given(window=WINDOWS, begin=LENGTHS, n_tokens=LENGTHS)
def test_keys_are_those_that_the_window_shows(window: Window, begin: int, n_tokens: int) -> None:
    shown = sum(visible(query, key, window) for query in range(begin, begin + n_tokens) for key in range(query + 1))
    assert keys_seen(window, begin, n_tokens) == shown


@given(first=WINDOWS, second=WINDOWS, begin=LENGTHS, lengths=st.lists(LENGTHS, max_size=4))
def test_cutting_a_text_changes_no_count(first: Window, second: Window, begin: int, lengths: list[int]) -> None:
    config, total = mixed(first, second), sum(lengths)
    starts = [begin + sum(lengths[:index]) for index in range(len(lengths))]
    parts = list(zip(starts, lengths, strict=True))
    assert operations(config, begin=begin, n_tokens=total, n_logits=total) == sum(
        operations(config, begin=start, n_tokens=length, n_logits=length) for start, length in parts
    )
    assert cache_bytes_read(config, begin=begin, n_tokens=total, bytes_per_value=2) == sum(
        cache_bytes_read(config, begin=start, n_tokens=length, bytes_per_value=2) for start, length in parts
    )
