"""Number formats of the cache, with torch's operations and with the native library, and rings with slots to spare."""

import math
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circius.base.config import PRESETS
from circius.base.errors import CacheFullError, InvalidInputError
from circius.kernels import native
from circius.model import RollingCache, Transformer
from circius.model.shelf import CACHE_DTYPES, rounded, slot_positions
from circius.model.window import EMPTY
from tests.models import random_model, random_tokens, tiny_config

pytestmark = pytest.mark.quick


def run(
    model: Transformer, tokens: torch.Tensor, chunks: list[int], dtype: torch.dtype, *, natively: bool, extra: int = 0
) -> torch.Tensor:
    cache = RollingCache(model.config, [len(tokens)], dtype=dtype, device="cpu", extra_slots=extra)
    with torch.inference_mode(), nullcontext() if natively else native.disabled():
        return torch.cat([model(part, [len(part)], cache=cache) for part in tokens.split(chunks)])


def test_eight_bits_keep_a_head_to_a_254th_of_its_largest_number() -> None:
    x = torch.randn(1000, 4, 128) * torch.logspace(-3, 3, 1000)[:, None, None]
    held = rounded(x, torch.int8)
    error = (held.read(torch.float32) - x).abs()
    assert (error <= x.abs().amax(-1, keepdim=True) / 254 * 1.001).all()
    assert error.square().mean(-1).sqrt().div(x.square().mean(-1).sqrt()).mean() < 0.008  # 0.6% of normal numbers


def test_float16_saturates_and_zeros_and_tiny_numbers_have_codes_of_zero() -> None:
    assert rounded(torch.tensor([1e6, -1e6, 65519.0]), torch.float16).numbers.tolist() == [65504, -65504, 65504]
    assert rounded(torch.tensor([math.nan]), torch.float16).numbers.isnan().all()
    for x in (torch.zeros(3, 8), torch.full((3, 8), 1e-39)):
        assert not rounded(x, torch.int8).numbers.any()
    assert rounded(torch.tensor([[1.0, math.inf]]), torch.int8).read(torch.float32).isnan().all()


@given(length=st.integers(0, 50), n_slots=st.integers(1, 20))
def test_slots_hold_the_last_positions(length: int, n_slots: int) -> None:
    expected = [EMPTY] * n_slots
    for position in range(length):
        expected[position % n_slots] = position
    assert slot_positions(torch.tensor([length]), n_slots).tolist() == [expected]


@pytest.mark.parametrize("dtype", CACHE_DTYPES)
@settings(max_examples=25, deadline=None)
@given(
    window=st.one_of(st.none(), st.integers(1, 20), st.just((4, None))),
    chunks=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    extra=st.integers(0, 5),
)
def test_native_and_torch_read_the_same_cache(
    dtype: torch.dtype, window: int | tuple[int, None] | None, chunks: list[int], extra: int
) -> None:
    """In every dtype of the cache, for a float32 model; slots to spare show nothing more."""
    model, tokens = random_model(tiny_config(window=window)), random_tokens(sum(chunks))
    runs = [run(model, tokens, chunks, dtype, natively=natively, extra=extra) for natively in (True, False)]
    # A number that falls on the other side of a rounding border moves what follows by a step of the format.
    step = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 4e-2, torch.int8: 4e-2}[dtype]
    torch.testing.assert_close(runs[0], runs[1], atol=step, rtol=step)
    assert (runs[0] - runs[1]).square().mean().sqrt() < step / 4


@pytest.mark.parametrize("cache_dtype", CACHE_DTYPES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_cache_may_have_another_dtype_than_the_model(dtype: torch.dtype, cache_dtype: torch.dtype) -> None:
    model, tokens = random_model(tiny_config()).to(dtype), random_tokens(30)
    for natively in (True, False):
        found = run(model, tokens, [11, 1, 18], cache_dtype, natively=natively)
        expected = run(model, tokens, [11, 1, 18], dtype, natively=False)
        torch.testing.assert_close(found.softmax(-1), expected.softmax(-1), atol=0.05, rtol=0)


def test_ways_may_change_between_steps() -> None:
    """Which slot holds which position follows from the length alone, so either way continues the other's work."""
    model, tokens = random_model(tiny_config(window=7)), random_tokens(60)
    cache = RollingCache(model.config, [60], dtype=torch.float32, device="cpu")
    found = []
    with torch.inference_mode():
        for turn, part in enumerate(tokens.split([9, 1, 20, 1, 1, 28])):
            with nullcontext() if turn % 2 else native.disabled():
                found.append(model(part, [len(part)], cache=cache))
        torch.testing.assert_close(torch.cat(found), model(tokens, [60]), atol=1e-5, rtol=1e-5)


def test_bytes_of_eight_bits_count_the_scales() -> None:
    config = PRESETS["v0.1"]
    cache = RollingCache(config, [4096], dtype=torch.int8, device="meta")
    codes = config.cache_bytes(4096, bytes_per_value=1)
    assert cache.n_bytes == codes + codes // config.head_dim * 4  # a float32 for each head of a token: 3% of 128 codes
    with torch.device("meta"):
        model = Transformer(config)
    assert model.cache_dtype == model.dtype
    model.cache_dtype = torch.int8
    assert model.cache_bytes(4096) == cache.n_bytes


@pytest.mark.parametrize("window", [1, 5, 100, (6, None)])
def test_slots_to_spare_make_the_last_tokens_revocable(window: int | tuple[int, None]) -> None:
    model, extra = random_model(tiny_config(window=window)), 4
    tokens, other = random_tokens(150), random_tokens(9, seed=1)
    with torch.inference_mode():
        for length in (3, 20, 101, 150):
            for back in range(min(extra, length) + 1):
                cache = RollingCache(model.config, [200], dtype=torch.float32, device="cpu", extra_slots=extra)
                model(tokens[:length], [length], cache=cache)
                assert cache.can_truncate(0, length - back)
                cache.truncate(0, length - back)
                kept = tokens[: length - back]
                expected = model(torch.cat((kept, other)), [len(kept) + 9])[len(kept) :]
                torch.testing.assert_close(model(other, [9], cache=cache), expected, atol=1e-5, rtol=1e-5)


def test_without_slots_to_spare_a_wrapped_ring_refuses() -> None:
    model = random_model(tiny_config(window=5))
    cache = RollingCache(model.config, [100], dtype=torch.float32, device="cpu")
    with torch.inference_mode():
        model(random_tokens(20), [20], cache=cache)
    with pytest.raises(CacheFullError, match="go back"):
        cache.truncate(0, 18)


@pytest.mark.parametrize("dtype", CACHE_DTYPES)
def test_rows_are_copied_reserved_and_touched_in_every_dtype(dtype: torch.dtype) -> None:
    model, tokens, rest = random_model(tiny_config(window=70)), random_tokens(40), random_tokens(90, seed=1)
    cache = RollingCache(model.config, [40, 1], dtype=dtype, device="cpu")
    cache.touch()
    with torch.inference_mode():
        model(tokens, [40], cache=cache, rows=[0])
        for row in (0, 1):
            cache.reserve(row, 130)
        cache.copy_row(0, 1)
        found = [model(rest, [90], cache=cache, rows=[row]) for row in (0, 1)]
    assert torch.equal(*found)
    expected = run(model, torch.cat((tokens, rest)), [130], dtype, natively=native.available())[40:]
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=1e-5)


def test_senseless_formats_and_slots_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="float32, float16, bfloat16 or int8"):
        RollingCache(tiny_config(), [5], dtype=torch.float64, device="cpu")
    with pytest.raises(InvalidInputError, match="extra_slots"):
        RollingCache(tiny_config(), [5], dtype=torch.float32, device="cpu", extra_slots=-1)
