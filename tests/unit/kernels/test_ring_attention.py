"""The native attention against exact arithmetic, and its instruction sets against each other."""

import math

import pytest
import torch

from circius.base.config import Window
from circius.base.errors import CirciusError
from circius.kernels import native
from circius.kernels.ring_attention import NewTokens, attends_natively
from circius.model.shelf import rounded
from tests.unit.kernels.attention_cases import Tokens, attention, empty_rings, exact, in_chunks, random_tokens

pytestmark = [
    pytest.mark.quick,
    pytest.mark.skipif(not native.available(), reason="the native library was not built"),
]

CACHES = (torch.float32, torch.float16, torch.bfloat16, torch.int8)
# query heads, key-value heads, head_dim: groups of 1 to 8, heads that are no multiple of 16 or of 8, the largest
SHAPES = [
    (4, 2, 8),
    (32, 8, 128),
    (6, 2, 80),
    (3, 3, 72),
    (8, 1, 64),
    (16, 8, 64),
    (5, 1, 20),
    (26, 2, 16),
    (1, 1, 256),
]


def as_read(tokens: Tokens, cache_dtype: torch.dtype) -> Tokens:
    """The tokens with the keys and values that a cache of that dtype gives back."""
    return Tokens(tokens.query, *(rounded(x, cache_dtype).read(torch.float32) for x in tokens[1:]))


@pytest.mark.parametrize("cache_dtype", CACHES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("n_tokens", "window"), [(1, 3), (150, 40), (200, 64), (131, None), (70, 5)])
def test_equals_exact_attention_over_the_rounded_cache(
    cache_dtype: torch.dtype, shape: tuple[int, int, int], n_tokens: int, window: Window
) -> None:
    tokens = random_tokens(n_tokens, *shape)
    n_slots = n_tokens if window is None else window
    chunks = [n_tokens - n_tokens // 2, n_tokens // 2] if n_tokens > 1 else [1]
    found = in_chunks(tokens, chunks, window=window, n_slots=n_slots, cache_dtype=cache_dtype)
    torch.testing.assert_close(found.double(), exact(as_read(tokens, cache_dtype), window), atol=4e-6, rtol=2e-5)


@pytest.mark.parametrize("isa", ["avx2", "avx512", "portable"])
@pytest.mark.parametrize("cache_dtype", CACHES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_instruction_set_gives_the_same_bits(isa: str, cache_dtype: torch.dtype, dtype: torch.dtype) -> None:
    for shape in [(8, 2, 16), (6, 2, 24), (3, 1, 20), (1, 1, 128)]:
        tokens = random_tokens(90, *shape, dtype=dtype)
        expected = in_chunks(tokens, [40, 1, 49], window=30, n_slots=33, cache_dtype=cache_dtype)
        try:
            with native.forced(isa):
                found = in_chunks(tokens, [40, 1, 49], window=30, n_slots=33, cache_dtype=cache_dtype)
        except CirciusError:
            pytest.skip(f"this processor has no {isa}")
        assert torch.equal(found, expected)


@pytest.mark.parametrize("isa", ["avx2", "portable"])
@pytest.mark.parametrize("cache_dtype", CACHES)
def test_rounds_exactly_as_torch_does(isa: str, cache_dtype: torch.dtype) -> None:
    """Ties, subnormals, the largest, what is past it, zeros, and what is not a number."""
    special = torch.tensor(
        [0.0, -0.0, 1e-45, 3e-8, 6.1e-5, 65503.9, 65519.9, 65520.0, 1e30, 2.0**-24 * 1.5, 1 + 2.0**-11]
    )
    wide = torch.cat((special, -special, torch.randn(42), torch.tensor([1 + 2.0**-8, 127.5, 0.5, -0.5, 2.5])))[:64]
    rows = torch.stack([wide, torch.zeros(64), torch.full((64,), 1e-39), torch.randn(64), wide.clone()])
    rows[4, 5] = math.inf
    rows = torch.cat((rows, torch.full((1, 64), math.nan)))
    keys = rows[:, None].repeat(1, 2, 1)
    tokens = Tokens(torch.zeros(len(keys), 2, 64), keys, -keys)
    rings = empty_rings(1, 2, 8, 64, cache_dtype)
    try:
        with native.forced(isa):
            attention([NewTokens(rings, 0, 0, len(keys))], tokens, None, cache_dtype)(0, *tokens)
    except CirciusError:
        pytest.skip(f"this processor has no {isa}")
    for ring, scales, given in ((rings.keys, rings.key_scales, keys), (rings.values, rings.value_scales, -keys)):
        expected = rounded(given.transpose(0, 1), cache_dtype)
        torch.testing.assert_close(ring[0, 0, :, : len(keys)], expected.numbers, atol=0, rtol=0, equal_nan=True)
        if scales is not None:
            assert expected.scales is not None
            torch.testing.assert_close(scales[0, 0, :, : len(keys)], expected.scales, atol=0, rtol=0, equal_nan=True)


@pytest.mark.parametrize("cache_dtype", CACHES)
def test_what_is_not_a_number_reaches_only_those_who_see_it(cache_dtype: torch.dtype) -> None:
    """Keys out of sight are never multiplied into anything, not even by zero."""
    window, bad, n_tokens = 20, 70, 150
    clean = random_tokens(n_tokens, 4, 2, 32)
    for bad_part in ("key", "value"):
        dirty = clean._replace(**{bad_part: getattr(clean, bad_part).clone()})
        getattr(dirty, bad_part)[bad] = math.nan
        for chunks in ([n_tokens], [1] * n_tokens, [60, 9, 81]):
            run = [in_chunks(x, chunks, window=window, n_slots=24, cache_dtype=cache_dtype) for x in (dirty, clean)]
            sees = torch.arange(bad, bad + window)
            assert run[0][sees].isnan().all()
            blind = torch.ones(n_tokens, dtype=torch.bool)
            blind[sees] = False
            assert torch.equal(run[0][blind], run[1][blind])


def test_takes_tokens_that_stand_apart() -> None:
    """A projection of queries, keys and values in one leaves strides between tokens."""
    tokens = random_tokens(9, 4, 2, 16)
    joined = torch.cat([x.flatten(1) for x in tokens], dim=1)
    apart = Tokens(*(x.view(9, -1, 16) for x in joined.split([64, 32, 32], dim=1)))
    assert not apart.query.is_contiguous()
    expected = in_chunks(tokens, [9], window=4, n_slots=4, cache_dtype=torch.float16)
    assert torch.equal(in_chunks(apart, [9], window=4, n_slots=4, cache_dtype=torch.float16), expected)
    swapped = Tokens(*(x.transpose(0, 1).contiguous().transpose(0, 1) for x in tokens))
    assert torch.equal(in_chunks(swapped, [9], window=4, n_slots=4, cache_dtype=torch.float16), expected)


def test_is_left_where_it_cannot_help() -> None:
    query, key, value = random_tokens(3, 2, 1, 16)
    fast = bool(native.library().circius_attention_is_fast())
    assert attends_natively(query, key, value) == fast
    assert attends_natively(query.requires_grad_(), key, value) is False
    with torch.no_grad():
        assert attends_natively(query, key, value) == fast
        assert attends_natively(query.double(), key.double(), value.double()) is False
        assert attends_natively(query.half(), key, value) is False
        assert attends_natively(*random_tokens(3, 2, 1, 272)) is False
        with native.disabled():
            assert attends_natively(query, key, value) is False
