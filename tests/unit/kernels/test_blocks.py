"""GGUF's blocks of every kind against the `gguf` package: the same values, or those values rounded as described."""

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from torch import Tensor

from circius.base.errors import CirciusError, InvalidInputError
from circius.kernels import blocks, native
from circius.kernels.blocks import take_blocks
from circius.kernels.packed import PackedMatrix, pack

pytestmark = pytest.mark.skipif(not native.available(), reason="the native kernels were not built here")

EXACT = [Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q8_0]
TO_8_BITS = [Kind.Q5_1, Kind.Q5_K, Kind.Q6_K]
SCALES_AT = {Kind.Q6_K: (208,), Kind.Q4_K: (0, 2), Kind.Q5_K: (0, 2), Kind.Q4_1: (0, 2), Kind.Q5_1: (0, 2)}


def random_rows(kind: Kind, n_outputs: int, n_inputs: int) -> Tensor:
    """Any bits, but for scales: positive and small, each different."""
    block, n_bytes = gguf.GGML_QUANT_SIZES[kind]
    generator = np.random.default_rng(0)
    rows = generator.integers(0, 256, (n_outputs, n_inputs // block, n_bytes), dtype=np.uint8)
    if kind == Kind.Q8_0:
        rows[rows == 128] = 0
    for at in SCALES_AT.get(kind, (0,)):
        scales = generator.uniform(0.001, 0.1, rows.shape[:2]).astype(np.float16)
        rows[..., at : at + 2] = scales[..., None].view(np.uint8)
    return torch.from_numpy(rows.reshape(n_outputs, -1))


def values_of(kind: Kind, rows: Tensor) -> Tensor:
    return torch.from_numpy(gguf.dequantize(rows.numpy(), kind).reshape(len(rows), -1))


def taken(
    kind: Kind, rows: Tensor, n_inputs: int = 512, order: Tensor | None = None
) -> tuple[PackedMatrix, float, float]:
    found = take_blocks(int(kind), rows, n_inputs, order)
    assert found is not None
    return found


@pytest.mark.parametrize("kind", EXACT, ids=lambda kind: kind.name)
@pytest.mark.parametrize("n_outputs", [1, 16, 37])
def test_values_are_the_same_to_the_last_bit(kind: Kind, n_outputs: int) -> None:
    rows = random_rows(kind, n_outputs, 512)
    matrix, error, norm = taken(kind, rows)
    assert torch.equal(matrix.unpack(), values_of(kind, rows))
    assert (matrix.group, error, norm) == (32, 0, 0)
    assert not matrix.scales.transpose(1, 2).flatten(0, 1)[n_outputs:].any()


@pytest.mark.parametrize("kind", TO_8_BITS, ids=lambda kind: kind.name)
def test_values_are_rounded_to_the_nearest_code_of_8_bits(kind: Kind) -> None:
    rows = random_rows(kind, 19, 512)
    rows[3] = 0
    values = values_of(kind, rows).view(19, -1, 32)
    scales = (values.abs().amax(-1) / 127).half()
    codes = torch.where(scales[..., None] > 0, values / scales.float()[..., None], 0).round().clamp(-127, 127)
    matrix, error, norm = taken(kind, rows)
    expected = pack(codes.to(torch.int8).flatten(1), scales)
    assert torch.equal(matrix.codes, expected.codes)
    assert torch.equal(matrix.scales, expected.scales)
    found, exact = matrix.unpack()[:16], values.flatten(1)[:16]  # the first tile is looked at
    assert error == pytest.approx(float((found - exact).double().square().sum()), rel=1e-3)
    assert norm == pytest.approx(float(exact.double().square().sum()), rel=1e-3)


def test_q4_k_keeps_its_codes_and_rounds_its_scales() -> None:
    rows = random_rows(Kind.Q4_K, 19, 512)
    exact = values_of(Kind.Q4_K, rows)
    matrix, error, norm = taken(Kind.Q4_K, rows)
    assert matrix.bits == 4
    assert matrix.mins is not None
    # Two numbers rounded to 11 bits, the first of them times a code of at most 15; both are all normal numbers here.
    scales, mins = (numbers.transpose(1, 2).flatten(0, 1)[:19].float() for numbers in (matrix.scales, matrix.mins))
    bound = (15 * scales + mins.abs()) * 2**-11 * 1.01 + 16 * 2**-25
    difference = (matrix.unpack() - exact).abs().view(19, -1, 32).amax(-1)
    assert (difference <= bound).all()
    assert 0 < error / norm < 1e-6
    assert error == pytest.approx(float((matrix.unpack()[:16] - exact[:16]).double().square().sum()), rel=1e-2)


def test_outputs_in_another_order() -> None:
    rows, order = random_rows(Kind.Q4_1, 20, 512), torch.randperm(20)
    assert torch.equal(taken(Kind.Q4_1, rows, order=order)[0].unpack(), values_of(Kind.Q4_1, rows)[order])


def test_several_threads_do_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = random_rows(Kind.Q6_K, 200, 512)
    expected = taken(Kind.Q6_K, rows)
    monkeypatch.setattr(blocks, "_WORTH_THREADS", 0)
    monkeypatch.setattr(native, "n_threads", lambda: 3)
    found = taken(Kind.Q6_K, rows)
    assert torch.equal(found[0].codes, expected[0].codes)
    assert found[1:] == expected[1:]


@pytest.mark.parametrize("value", ["inf", "nan", "-inf"])
@pytest.mark.parametrize("kind", [*EXACT, *TO_8_BITS, Kind.Q4_K], ids=lambda kind: kind.name)
def test_scales_that_are_not_finite_are_found(kind: Kind, value: str) -> None:
    _, n_bytes = gguf.GGML_QUANT_SIZES[kind]
    for at in SCALES_AT.get(kind, (0,)):
        rows = random_rows(kind, 17, 512)
        bits = np.frombuffer(np.float16(value).tobytes(), np.uint8).copy()
        rows[16, n_bytes + at : n_bytes + at + 2] = torch.from_numpy(bits)
        assert take_blocks(int(kind), rows, 512) is None


def test_a_code_of_minus_128_is_found() -> None:
    rows = random_rows(Kind.Q8_0, 17, 512)
    rows[5, 34 + 2 + 31] = 128
    assert take_blocks(int(Kind.Q8_0), rows, 512) is None


def test_what_does_not_fit_is_refused() -> None:
    rows = random_rows(Kind.Q8_0, 2, 512)
    with pytest.raises(InvalidInputError, match="kind 99"):
        take_blocks(99, rows, 512)
    for kind, n_inputs in ((Kind.Q8_0, 544), (Kind.Q6_K, 544), (Kind.Q8_0, 0), (Kind.Q6_K, 512 + 256)):
        with pytest.raises(CirciusError, match="refused their arguments"):
            take_blocks(int(kind), rows, n_inputs)
    with pytest.raises(CirciusError, match="refused their arguments"):
        take_blocks(int(Kind.Q8_0), rows, 512, torch.tensor([0, 2]))
