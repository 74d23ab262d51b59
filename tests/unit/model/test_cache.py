"""What the cache allocates: the paper's claims of memory (2x at 8k, 8x at 32k) on the shape of Table 1."""

from dataclasses import replace

import pytest
import torch

from circius.base.config import PRESETS
from circius.base.errors import InvalidInputError
from circius.model import RollingCache
from tests.models import tiny_config

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(("n_tokens", "saving"), [(4_096, 1), (8_192, 2), (16_384, 4), (32_768, 8), (131_072, 32)])
def test_rolling_buffer_saves_what_the_paper_says(n_tokens: int, saving: int) -> None:
    windowed = PRESETS["v0.1"]
    full = replace(windowed, window_size=None)
    sizes = [RollingCache(c, [n_tokens], dtype=torch.bfloat16, device="meta").n_bytes for c in (windowed, full)]
    assert sizes[1] == saving * sizes[0] == n_tokens * 128 * 1024  # 128 KiB a token
    assert sizes == [c.cache_bytes(n_tokens) for c in (windowed, full)]


def test_a_short_request_takes_its_need_and_not_the_window() -> None:
    cache = RollingCache(PRESETS["v0.1"], [100, 5000], dtype=torch.bfloat16, device="meta")
    assert cache.n_bytes == (128 + 4096) * 128 * 1024  # needs are rounded up to 64 slots


def test_layers_with_windows_of_their_own() -> None:
    config = tiny_config(window=(3, None), n_layers=2)
    cache = RollingCache(config, [128], dtype=torch.float32, device="cpu")
    assert cache.n_bytes == (3 + 128) * 2 * 2 * 8 * 4 == config.cache_bytes(128, bytes_per_value=4)


@pytest.mark.parametrize("needs", [[], [0], [5, -1]])
def test_senseless_needs_are_refused(needs: list[int]) -> None:
    with pytest.raises(InvalidInputError, match="needs"):
        RollingCache(tiny_config(), needs, dtype=torch.float32, device="cpu")
