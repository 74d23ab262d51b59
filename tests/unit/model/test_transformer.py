"""Table 1 on the meta device, and what the model refuses."""

import pytest
import torch

from circius.base.config import PRESETS
from circius.base.errors import CacheFullError, InvalidInputError
from circius.model import RollingCache, Transformer
from tests.models import random_model, random_tokens, tiny_config

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("name", "expected"), [("v0.1", 7_241_732_096), ("v0.2", 7_241_732_096), ("v0.3", 7_248_023_552)]
)
def test_table_1_has_exactly_this_many_parameters(name: str, expected: int) -> None:
    with torch.device("meta"):
        model = Transformer(PRESETS[name])
    assert sum(p.numel() for p in model.parameters()) == expected == PRESETS[name].n_parameters


def test_tied_output_has_no_head_of_its_own() -> None:
    config = tiny_config(tied=True)
    model = Transformer(config)
    assert "lm_head.weight" not in model.state_dict()
    assert sum(p.numel() for p in model.parameters()) == config.n_parameters


def test_logits_last_and_none_agree_with_all() -> None:
    model, tokens = random_model(tiny_config()), random_tokens(12)
    everything = model(tokens, [7, 5])
    torch.testing.assert_close(model(tokens, [7, 5], logits="last"), everything[[6, 11]], atol=1e-6, rtol=0)
    assert model(tokens, [7, 5], logits="none").shape == (0, 61)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_are_float32_and_the_cache_has_the_dtype_of_the_model(dtype: torch.dtype) -> None:
    model = random_model(tiny_config()).to(dtype)
    cache = RollingCache(model.config, [20], dtype=model.dtype, device=model.device)
    assert model(random_tokens(9), [9], cache=cache).dtype == torch.float32
    assert cache.n_bytes == model.config.cache_bytes(20, bytes_per_value=2)


@pytest.mark.parametrize(
    ("tokens", "lengths"),
    [
        (random_tokens(5), [4]),
        (random_tokens(5), [5, 0]),
        (random_tokens(5), []),
        (random_tokens(6).view(2, 3), [3, 3]),
    ],
)
def test_lengths_that_do_not_fit_are_refused(tokens: torch.Tensor, lengths: list[int]) -> None:
    with pytest.raises(InvalidInputError, match="flat axis"):
        random_model(tiny_config())(tokens, lengths)


@pytest.mark.parametrize("rows", [[1, 0], [0, 0], [0], [0, 2], [-1, 0]])
def test_rows_that_do_not_fit_are_refused(rows: list[int]) -> None:
    model = random_model(tiny_config())
    cache = RollingCache(model.config, [9, 9], dtype=torch.float32, device="cpu")
    with pytest.raises(InvalidInputError, match="rows"):
        model(random_tokens(4), [2, 2], cache=cache, rows=rows)
    with pytest.raises(InvalidInputError, match="no cache"):
        model(random_tokens(4), [2, 2], rows=rows)


def test_a_row_without_a_window_is_full_at_its_need_and_nothing_is_written() -> None:
    model = random_model(tiny_config(window=None))
    cache = RollingCache(model.config, [64], dtype=torch.float32, device="cpu")
    model(random_tokens(60), [60], cache=cache)
    with pytest.raises(CacheFullError, match="room for 64 in all, 5 more do not fit"):
        model(random_tokens(5), [5], cache=cache)
    model(random_tokens(4), [4], cache=cache)
    assert cache.lengths == [64]


def test_a_row_of_an_interrupted_forward_is_refused_until_it_is_truncated() -> None:
    model, tokens = random_model(tiny_config()), random_tokens(9)
    cache = RollingCache(model.config, [20], dtype=torch.float32, device="cpu")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    hook = model.model.layers[1].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        model(tokens, [9], cache=cache)
    hook.remove()
    with pytest.raises(CacheFullError, match="interrupted"):
        model(tokens, [9], cache=cache)
    cache.truncate(0, 0)
    torch.testing.assert_close(model(tokens, [9], cache=cache), model(tokens, [9]), atol=1e-5, rtol=0)
