"""What a configuration refuses."""

from dataclasses import replace

import pytest

from circius.base.config import PRESETS, ModelConfig
from circius.base.errors import ConfigError
from tests.models import tiny_config

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 0}, "dim must be a positive whole number, got 0"),
        ({"n_layers": 2.0}, "n_layers must be a positive whole number, got 2.0"),
        ({"n_heads": True}, "n_heads must be"),
        ({"n_kv_heads": 3}, "multiple of n_kv_heads, got 4 and 3"),
        ({"head_dim": 7}, "head_dim must be even"),
        ({"window_size": 0}, "window_size must be"),
        ({"window_size": (1, 2, 3)}, "3 entries for 2 layers"),
        ({"rope_theta": float("inf")}, "rope_theta must be a positive number"),
        ({"norm_eps": 0.0}, "norm_eps must be"),
        ({"norm_eps": float("nan")}, "norm_eps must be"),
    ],
)
def test_contradictions_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(tiny_config(), **change)


def test_windows_of_layers() -> None:
    assert tiny_config(window=4).windows == (4, 4)
    assert tiny_config(window=(4, None)).windows == (4, None)
    assert tiny_config(window=4).has_bounded_cache
    assert not tiny_config(window=(4, None)).has_bounded_cache


def test_presets_differ_only_where_the_versions_do() -> None:
    v1, v2, v3 = (PRESETS[name] for name in ("v0.1", "v0.2", "v0.3"))
    assert isinstance(v1, ModelConfig)
    assert (v1.window_size, v1.rope_theta, v1.vocab_size, v1.context_len) == (4096, 1e4, 32000, 8192)
    assert v2 == replace(v1, window_size=None, rope_theta=1e6, context_len=32768)
    assert v3 == replace(v2, vocab_size=32768)
