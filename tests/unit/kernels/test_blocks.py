"""Blocks put in tiles by the library: every value where the definition of a packed matrix wants it."""

import numpy as np
import pytest
import torch
from torch import Tensor

from circius.base.errors import CirciusError
from circius.kernels import blocks, native
from circius.kernels.blocks import BlockForm, tile_blocks
from circius.kernels.packed import PackedMatrix, pack

pytestmark = pytest.mark.skipif(not native.available(), reason="the native kernels were not built here")

HALVES = BlockForm(n_bytes=20, n_values=32, codes_at=4, run=16, scale_at=0, min_at=2)
LONG_HALVES = BlockForm(n_bytes=70, n_values=128, codes_at=5, run=32)
BYTES = BlockForm(n_bytes=34, n_values=32, codes_at=2, scale_at=0)


def random_rows(form: BlockForm, n_outputs: int, n_blocks: int) -> Tensor:
    """Any codes but -128, and numbers that are finite."""
    rows = np.random.default_rng(0).integers(0, 255, (n_outputs, n_blocks, form.n_bytes), dtype=np.uint8)
    if not form.run:
        rows[rows == 128] = 0
    for at in (form.scale_at, form.min_at):
        if at >= 0:
            rows[..., at + 1] &= 0x3B
    return torch.from_numpy(rows.reshape(n_outputs, -1))


def codes_of(form: BlockForm, rows: Tensor) -> Tensor:
    """Code by code, as the form is described."""
    cut = rows.view(len(rows), -1, form.n_bytes)[..., form.codes_at :]
    if not form.run:
        return cut[..., : form.n_values].contiguous().view(torch.int8).flatten(1)
    runs = cut[..., : form.n_values // 2].unflatten(-1, (-1, form.run))
    return torch.cat((runs & 15, runs >> 4), dim=-1).flatten(1)


def numbers_of(form: BlockForm, rows: Tensor, at: int) -> Tensor:
    return rows.view(len(rows), -1, form.n_bytes)[..., at : at + 2].contiguous().view(torch.float16)[..., 0]


@pytest.mark.parametrize("form", [HALVES, BYTES], ids=["halves", "bytes"])
@pytest.mark.parametrize("n_outputs", [1, 16, 37])
def test_equals_packing_the_same_codes(form: BlockForm, n_outputs: int) -> None:
    rows = random_rows(form, n_outputs, 3)
    tiles = tile_blocks(form, rows)
    mins = numbers_of(form, rows, form.min_at) if form.min_at >= 0 else None
    expected = pack(codes_of(form, rows), numbers_of(form, rows, form.scale_at), mins)
    assert tiles.is_sound
    assert torch.equal(tiles.codes, expected.codes)
    assert torch.equal(tiles.scales, expected.scales)
    assert (tiles.mins is None) == (expected.mins is None)
    found = PackedMatrix(n_outputs=n_outputs, codes=tiles.codes, scales=tiles.scales, mins=tiles.mins)
    assert torch.equal(found.unpack(), expected.unpack())


def test_blocks_of_several_runs_without_numbers() -> None:
    rows = random_rows(LONG_HALVES, 20, 2)
    tiles = tile_blocks(LONG_HALVES, rows)
    expected = pack(codes_of(LONG_HALVES, rows), torch.ones(20, 8, dtype=torch.float16))
    assert torch.equal(tiles.codes, expected.codes)
    assert tiles.scales.shape == expected.scales.shape


def test_outputs_in_another_order() -> None:
    rows, order = random_rows(BYTES, 20, 2), torch.randperm(20)
    moved, own = tile_blocks(BYTES, rows, order), tile_blocks(BYTES, rows[order])
    assert torch.equal(moved.codes, own.codes)
    assert torch.equal(moved.scales, own.scales)


def test_several_threads_do_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = random_rows(HALVES, 200, 4)
    expected = tile_blocks(HALVES, rows)
    monkeypatch.setattr(blocks, "_WORTH_THREADS", 0)
    monkeypatch.setattr(native, "n_threads", lambda: 3)
    assert torch.equal(tile_blocks(HALVES, rows).codes, expected.codes)


@pytest.mark.parametrize("value", [np.float16("inf"), np.float16("nan"), np.float16("-inf")])
@pytest.mark.parametrize("at", [0, 2])
def test_numbers_that_are_not_finite_are_told(value: np.float16, at: int) -> None:
    rows = random_rows(HALVES, 17, 2)
    rows[16, 20 + at : 22 + at] = torch.from_numpy(np.frombuffer(value.tobytes(), np.uint8).copy())
    assert not tile_blocks(HALVES, rows).is_sound


def test_a_code_of_minus_128_is_told() -> None:
    rows = random_rows(BYTES, 17, 2)
    rows[5, 34 + 2 + 31] = 128
    assert not tile_blocks(BYTES, rows).is_sound


@pytest.mark.parametrize(
    "changes",
    [
        {"n_bytes": 19},
        {"n_values": 33},
        {"n_values": 64, "n_bytes": 40},
        {"codes_at": 5},
        {"codes_at": -1},
        {"run": 8},
        {"scale_at": 19},
        {"min_at": 19},
    ],
)
def test_the_library_refuses_forms_that_do_not_add_up(changes: dict[str, int]) -> None:
    with pytest.raises(CirciusError, match="refused their arguments"):
        tile_blocks(HALVES._replace(**changes), torch.zeros(16, 760, dtype=torch.uint8))


def test_the_library_refuses_an_order_that_leaves_the_rows() -> None:
    with pytest.raises(CirciusError, match="refused their arguments"):
        tile_blocks(BYTES, random_rows(BYTES, 2, 1), torch.tensor([0, 2]))
