"""The paged cache by itself: what it takes, what it refuses, what it copies."""

from pathlib import Path

import pytest
import torch

from circius.base.config import PRESETS
from circius.base.errors import InvalidInputError
from circius.kernels import ring_attention
from circius.model import PagedCache, PagedRow, RollingCache, Transformer
from tests.models import random_model, random_tokens, tiny_config

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int8]


def _model(window: int | None = 70) -> Transformer:
    return random_model(tiny_config(window=window)).requires_grad_(False)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [None, 5, 70])
def test_pages_in_any_order_give_what_a_ring_gives(dtype: torch.dtype, window: int | None) -> None:
    model, tokens = _model(window), random_tokens(200)
    ring = RollingCache(model.config, [200], dtype=dtype, device="cpu")
    paged = PagedCache(model.config, 9, dtype=dtype, device="cpu")
    pages = [7, 2, 8, 0]
    begin = 0
    for end in (1, 90, 91, 200):
        chunk = tokens[begin:end]
        first = 0 if window is None else max(0, begin - window + 1) // 64
        row = PagedRow(pages=pages[first:], first_page=first, n_cached=begin)
        expected = model(chunk, [end - begin], cache=ring)
        assert torch.equal(model(chunk, [end - begin], cache=paged.rows([row])), expected)
        begin = end


@torch.inference_mode()
def test_a_copied_page_goes_on_as_the_first_would() -> None:
    model, tokens = _model(), random_tokens(101)
    cache = PagedCache(model.config, 4, dtype=torch.float32, device="cpu")
    model(tokens[:100], [100], cache=cache.rows([PagedRow(pages=[0, 1], first_page=0, n_cached=0)]))
    cache.copy_page(1, 3)
    own, other = (
        model(tokens[100:], [1], cache=cache.rows([PagedRow(pages=[0, last], first_page=0, n_cached=100)]))
        for last in (1, 3)
    )
    assert torch.equal(own, other)


@pytest.mark.parametrize(
    ("row", "n_tokens"),
    [
        (PagedRow(pages=[0], first_page=0, n_cached=60), 5),
        (PagedRow(pages=[], first_page=0, n_cached=0), 1),
        (PagedRow(pages=[0], first_page=2, n_cached=150), 1),
        (PagedRow(pages=[9], first_page=0, n_cached=0), 1),
        (PagedRow(pages=[-1], first_page=0, n_cached=0), 1),
    ],
)
def test_a_row_without_the_pages_it_needs_is_refused(row: PagedRow, n_tokens: int) -> None:
    cache = PagedCache(_model().config, 4, dtype=torch.float32, device="cpu")
    with pytest.raises(InvalidInputError):
        cache.rows([row]).begin([n_tokens])


def test_numbers_that_make_no_cache() -> None:
    config = _model().config
    with pytest.raises(InvalidInputError, match="at least one page"):
        PagedCache(config, 0, dtype=torch.float32, device="cpu")
    with pytest.raises(InvalidInputError, match="a cache holds"):
        PagedCache(config, 1, dtype=torch.float64, device="cpu")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is counted by /proc here")
def test_pages_take_memory_when_they_are_written() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    before = resident()
    cache = PagedCache(PRESETS["v0.1"], 64, dtype=torch.float16, device="cpu")
    assert cache.n_bytes == 64 * 64 * 128 * 1024
    assert resident() - before < cache.n_bytes / 4
    assert cache.pages.keys.data_ptr() % 64 == 0
    assert not cache.pages.keys[5].any()


@torch.inference_mode()
@pytest.mark.parametrize("window", [None, 5, 70])
def test_single_tokens_of_many_rows_without_the_native_kernels(
    window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of different lengths decode together as each does alone, whatever stands in what they do not see."""
    monkeypatch.setattr(ring_attention, "is_fast", lambda: False)
    model = _model(window)
    cache = PagedCache(model.config, 9, dtype=torch.float32, device="cpu")
    for held in cache.pages[:2]:
        assert held is not None
        held.fill_(torch.nan)
    lengths, tables = (3, 130, 64, 90), ([4], [0, 8, 2], [6, 3], [7, 1])
    texts = [random_tokens(n + 1, seed=n) for n in lengths]
    for text, table in zip(texts, tables, strict=True):
        model(text[:-1], [len(text) - 1], cache=cache.rows([PagedRow(pages=table, first_page=0, n_cached=0)]))
    rows = [PagedRow(pages=table, first_page=0, n_cached=n) for table, n in zip(tables, lengths, strict=True)]
    together = model(torch.cat([text[-1:] for text in texts]), [1] * 4, cache=cache.rows(rows))
    for logits, text in zip(together, texts, strict=True):
        torch.testing.assert_close(logits, model(text, [len(text)])[-1], atol=1e-5, rtol=0)
