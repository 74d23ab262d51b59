"""The kernel against torch's own attention."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from circius.kernels.attention import Stretch, attend, queries_per_block
from circius.model.window import visible

pytestmark = pytest.mark.quick


@settings(max_examples=50, deadline=None)
@given(
    rows=st.integers(1, 3), n_queries=st.integers(1, 6), n_kv_heads=st.integers(1, 3), group=st.integers(1, 4),
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=3), seed=st.integers(0, 2**20),
)  # fmt: skip
def test_equals_sdpa_however_the_keys_are_split(
    rows: int, n_queries: int, n_kv_heads: int, group: int, sizes: list[int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(rows, n_queries, n_kv_heads * group, 8, generator=generator)
    keys, values = torch.randn(2, rows, n_kv_heads, sum(sizes), 8, generator=generator)
    seen = torch.rand(rows, n_queries, sum(sizes), generator=generator) < 0.6
    seen[..., 0] = True
    stretches, begin = [], 0
    for size in sizes:
        part = slice(begin, begin + size)
        stretches.append(Stretch(keys[:, :, part], values[:, :, part], seen[..., part]))
        begin += size
    expected = scaled_dot_product_attention(query.transpose(1, 2), keys, values, seen[:, None], enable_gqa=True)
    torch.testing.assert_close(attend(query, stretches), expected.transpose(1, 2), atol=1e-5, rtol=1e-4)


def test_no_mask_means_all_keys() -> None:
    query, keys, values = torch.randn(2, 3, 4, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
    everything = torch.ones(1, 3, 5, dtype=torch.bool)
    torch.testing.assert_close(
        attend(query, [Stretch(keys, values)]), attend(query, [Stretch(keys, values, everything)])
    )


def test_block_size_bounds_the_scores() -> None:
    for device, most in (("cpu", 128), ("cuda", 512)):
        assert queries_per_block(n_heads=1, n_keys=1, device=torch.device(device)) == most
        assert queries_per_block(n_heads=64, n_keys=10**9, device=torch.device(device)) == 16


@settings(max_examples=30, deadline=None)
@given(n_queries=st.integers(8, 30), n_before=st.integers(0, 20), window=st.one_of(st.none(), st.integers(1, 40)))
def test_the_fused_kernel_says_the_same(n_queries: int, n_before: int, window: int | None) -> None:
    """Without gradients a CPU may take torch's fused kernel; with them plain products are used."""
    query = torch.randn(2, n_queries, 6, 16)
    keys, values = torch.randn(2, 2, 2, n_before + n_queries, 16)
    places = torch.arange(n_before + n_queries)
    for seen in (visible(places[n_before:, None], places, window)[None], None):
        plain = attend(query, [Stretch(keys, values, seen)])
        with torch.inference_mode():
            fused = attend(query, [Stretch(keys, values, seen)])
        torch.testing.assert_close(fused, plain, atol=1e-5, rtol=1e-4)
    only_new = visible(places[n_before:, None], places[n_before:], None)[None]
    narrow = attend(query, [Stretch(keys, values, only_new)])
    with torch.inference_mode():
        torch.testing.assert_close(attend(query, [Stretch(keys, values, only_new)]), narrow, atol=1e-5, rtol=1e-4)
    wide = torch.cat((torch.ones(1, n_queries, n_before, dtype=torch.bool), only_new), dim=-1)
    torch.testing.assert_close(attend(query, [Stretch(keys, values, wide)]), narrow, atol=1e-5, rtol=1e-4)
