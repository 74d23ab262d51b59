"""Packed products: against whole-number arithmetic, across instruction sets, threads and neighbours, and without the
library."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor

from circius.base.errors import InvalidInputError
from circius.kernels import native
from circius.kernels.packed import UNIT, PackedMatrix, pack
from circius.kernels.packed_linear import _takes_few_rows, packed_linear, packed_linears, runs_native, unpack

pytestmark = pytest.mark.quick

KINDS = ["symmetric4", "minima4", "symmetric8"]


def _isas() -> list[str]:
    """The instruction sets that can be forced here."""
    if not native.available():
        return []
    usable = [name for name, number in native.ISAS.items() if native.library().circius_force_isa(number) == 0]
    native.library().circius_force_isa(-1)
    return usable


@pytest.fixture(params=_isas() or [pytest.param("none", marks=pytest.mark.skip(reason="the library was not built"))])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    with native.forced(request.param):
        yield request.param


def random_matrix(
    kind: str, n_outputs: int = 40, n_inputs: int = 192, group: int = 32, dtype: torch.dtype = torch.float16
) -> PackedMatrix:
    if kind == "symmetric8":
        codes = torch.randint(-127, 128, (n_outputs, n_inputs), dtype=torch.int8)
    else:
        codes = torch.randint(0, 16, (n_outputs, n_inputs), dtype=torch.uint8)
    scales = (torch.rand(n_outputs, n_inputs // group) * 0.02 + 0.001).to(dtype)
    mins = (torch.randn(n_outputs, n_inputs // group) * 0.1).to(dtype) if kind == "minima4" else None
    return pack(codes, scales, mins)


def exact_case(
    kind: str, n_rows: int, n_outputs: int, n_inputs: int, group: int
) -> tuple[Tensor, PackedMatrix, Tensor]:
    """Rows and a matrix whose product, with all roundings, is a whole number times a quarter; and that product.

    Every unit of a row holds a 127, so it stays as it is; scales are a half and a quarter, minima multiples of one.
    """
    random = np.random.default_rng(0)
    x = random.integers(-127, 128, (n_rows, n_inputs))
    x[:, ::UNIT] = np.where(random.integers(0, 2, (n_rows, n_inputs // UNIT)), 127, -127)
    low, high = (-127, 128) if kind == "symmetric8" else (0, 16)
    codes = random.integers(low, high, (n_outputs, n_inputs))
    x[0], codes[0] = 127, high - 1  # the extremes, of either sign
    x[-1], codes[-1] = -127, low
    quarters = random.integers(1, 3, (n_outputs, n_inputs // group))
    minima = random.integers(-8, 9, (n_outputs, n_inputs // group)) if kind == "minima4" else None
    weights = (codes - (8 if kind == "symmetric4" else 0)) * quarters.repeat(group, 1)
    if minima is not None:
        weights = weights + minima.repeat(group, 1)
    product = x @ weights.T
    assert np.abs(product).max() < 2**24
    matrix = pack(
        torch.from_numpy(codes).to(torch.int8 if kind == "symmetric8" else torch.uint8),
        torch.from_numpy(quarters / 4).half(),
        None if minima is None else torch.from_numpy(minima / 4).half(),
    )
    return torch.from_numpy(x).float(), matrix, torch.from_numpy(product / 4).float()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_rows", [1, 2, 3, 7, 9, 40, 131])
@pytest.mark.parametrize(("n_outputs", "n_inputs", "group"), [(16, 32, 32), (1, 96, 96), (50, 448, 64), (37, 512, 512)])
def test_whole_numbers_are_exact(isa: str, kind: str, n_rows: int, n_outputs: int, n_inputs: int, group: int) -> None:
    x, matrix, product = exact_case(kind, n_rows, n_outputs, n_inputs, group)
    assert packed_linear(x, matrix).equal(product)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("n_inputs", "group"), [(32, 32), (1120, 32), (4096, 128), (2112, 2112)])
def test_every_instruction_set_gives_the_same_bits(
    isa: str, kind: str, dtype: torch.dtype, n_inputs: int, group: int
) -> None:
    matrix = random_matrix(kind, 40, n_inputs, group, dtype)
    x = torch.randn(13, n_inputs) * torch.randn(13, n_inputs).exp()
    x[3, :32] = 0
    x[4, 0] = 1e-40
    x[5, :32] = torch.randn(32) * 1e-39  # no number that 127 divided by is still finite
    found = packed_linear(x, matrix)
    with native.forced("portable"):
        assert packed_linear(x, matrix).equal(found)
    assert found.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_rounding_is_as_it_is_written(isa: str, kind: str) -> None:
    """The numbers of csrc/matmul.h, step by step in numpy; the fused additions in float64, which hold them exactly."""
    matrix = random_matrix(kind, 16, 256, 64)
    x = torch.randn(3, 256)
    units = x.numpy().reshape(3, -1, UNIT)
    amax = np.abs(units).max(-1, keepdims=True)
    s = (amax / np.float32(127))[..., 0]
    a = np.rint(units * (np.float32(127) / amax)).astype(np.int64)
    codes = pack_codes(matrix).reshape(16, -1, UNIT)
    scales = matrix.scales[0].float().numpy().T.repeat(2, 1)
    y = np.zeros((3, 16), dtype=np.float32)
    for u in range(units.shape[1]):
        whole = a[:, u] @ codes[:, u].T
        scale = s[:, u, None] * scales[None, :, u]
        y = (scale.astype(np.float64) * whole + y).astype(np.float32)
        if matrix.mins is not None:
            mins = matrix.mins[0].float().numpy().T.repeat(2, 1)[None, :, u]
            shift = s[:, u, None] * a[:, u].sum(-1, keepdims=True).astype(np.float32)
            y = (mins.astype(np.float64) * shift + y).astype(np.float32)
    assert packed_linear(x, matrix).equal(torch.from_numpy(y))


def pack_codes(matrix: PackedMatrix) -> np.ndarray:
    """The codes of a matrix of one tile, with 8 taken off where that is zero."""
    ones = PackedMatrix(
        n_outputs=matrix.n_outputs,
        codes=matrix.codes,
        scales=torch.ones_like(matrix.scales),
        mins=None if matrix.mins is None else torch.zeros_like(matrix.mins),
    )
    return ones.unpack().numpy().astype(np.int64)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_depends_on_nothing_but_itself(isa: str, kind: str) -> None:
    matrix = random_matrix(kind, 50, 1120)
    x = torch.randn(29, 1120)
    together = packed_linear(x, matrix)
    for begin, end in [(0, 1), (28, 29), (3, 5), (2, 9), (0, 16), (12, 29)]:
        assert packed_linear(x[begin:end], matrix).equal(together[begin:end])


@pytest.mark.parametrize("n_threads", [2, 3, 5])
def test_the_number_of_threads_changes_nothing(n_threads: int) -> None:
    matrices = [random_matrix(kind, n_outputs, 416) for kind in KINDS for n_outputs in (16, 100)]
    for n_rows in (1, 6, 70):
        x = torch.randn(n_rows, 416)
        one = packed_linears(x, matrices)
        torch.set_num_threads(n_threads)
        try:
            several = packed_linears(x, matrices)
        finally:
            torch.set_num_threads(1)
        assert all(a.equal(b) for a, b in zip(one, several, strict=True))


def test_more_rows_than_one_pass_takes(isa: str) -> None:
    matrix = random_matrix("symmetric4", 20, 64)
    x = torch.randn(1100, 64)
    together = packed_linear(x, matrix)
    assert together.equal(torch.cat([packed_linear(part, matrix) for part in x.split(100)]))


def test_more_matrices_than_one_pass_takes() -> None:
    matrices = [random_matrix(KINDS[i % 3], 10 + i, 64) for i in range(37)]
    x = torch.randn(3, 64)
    for matrix, found in zip(matrices, packed_linears(x, matrices), strict=True):
        assert found.equal(packed_linear(x, matrix))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_rows", [1, 20])
def test_it_is_near_the_product_of_the_values(kind: str, n_rows: int) -> None:
    matrix = random_matrix(kind, 50, 512)
    x = torch.randn(n_rows, 512)
    exact = x.double() @ matrix.unpack().double().T
    for activations, most in (("int8", 0.01), ("float", 1e-5)):
        found = packed_linear(x, matrix, activations)
        assert (found - exact).norm() / exact.norm() < most


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_rows", [1, 2, 5, 12, 13])
@pytest.mark.parametrize(("n_inputs", "group", "dtype"), [(96, 32, torch.float16), (448, 448, torch.bfloat16)])
def test_rows_that_are_not_rounded(
    isa: str, kind: str, n_rows: int, n_inputs: int, group: int, dtype: torch.dtype
) -> None:
    matrix = random_matrix(kind, 50, n_inputs, group, dtype)
    x = torch.randn(13, n_inputs) * torch.randn(13, 1).exp()
    found = packed_linear(x[:n_rows], matrix, "float")
    exact = x[:n_rows].double() @ matrix.unpack().double().T
    assert ((found - exact).norm(dim=1) <= 3e-6 * exact.norm(dim=1)).all()
    if n_rows == 5:
        assert packed_linear(x[3:4], matrix, "float").equal(found[3:4]) or not _takes_few_rows(1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_row_that_is_not_finite_is_nan_and_no_other(isa: str, bad: float) -> None:
    matrices = [random_matrix(kind) for kind in KINDS]
    x = torch.randn(6, 192)
    clean = packed_linears(x, matrices)
    x[2, 100] = bad
    for before, after in zip(clean, packed_linears(x, matrices), strict=True):
        assert after[2].isnan().all()
        assert after[[0, 1, 3, 4, 5]].equal(before[[0, 1, 3, 4, 5]])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_result_has_the_dtype_of_x(dtype: torch.dtype) -> None:
    matrix = random_matrix("symmetric4")
    x = torch.randn(3, 192).to(dtype)
    found = packed_linear(x, matrix)
    assert found.dtype == dtype
    if native.available():
        assert found.equal(packed_linear(x.float(), matrix).to(dtype))


def test_rows_may_lie_anyhow() -> None:
    matrix = random_matrix("symmetric4")
    wide = torch.randn(5, 400)
    for x in (wide[:, 100:292], wide[::2, :192], wide[:, ::2][:, :192], wide.T[:192].T, wide[:1, :192].expand(4, 192)):
        assert packed_linear(x, matrix).equal(packed_linear(x.contiguous(), matrix))
    assert packed_linear(wide[:0, :192], matrix).shape == (0, 40)


def test_without_the_library_torch_multiplies() -> None:
    matrices = [random_matrix(kind, 1100, 96) for kind in KINDS]
    x = torch.randn(4, 96)
    found = packed_linears(x, matrices)
    with native.disabled():
        assert not runs_native(x, matrices)
        plain = packed_linears(x, matrices)
        assert packed_linears(x.bfloat16(), matrices)[0].dtype == torch.bfloat16
    for a, b, matrix in zip(found, plain, matrices, strict=True):
        torch.testing.assert_close(b, x @ matrix.unpack().T)
        assert (a - b).norm() / b.norm() < 0.01


def test_a_gradient_reaches_x() -> None:
    matrix = random_matrix("minima4", 1100, 96)
    x = torch.randn(3, 96, requires_grad=True)
    assert not runs_native(x, (matrix,))
    packed_linear(x, matrix).sum().backward()
    torch.testing.assert_close(x.grad, matrix.unpack().sum(0).expand(3, -1))
    with torch.no_grad():
        assert runs_native(x, (matrix,)) == native.available()


def test_calls_from_several_threads_do_not_meet() -> None:
    matrices = [random_matrix(kind, 100, 416) for kind in KINDS]
    rows = [torch.randn(n, 416) for n in (1, 3, 17, 40, 2, 90, 1, 64)]
    alone = [packed_linears(x, matrices) for x in rows]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            together = list(pool.map(lambda x: packed_linears(x, matrices), rows))
            assert all(a.equal(b) for x, y in zip(alone, together, strict=True) for a, b in zip(x, y, strict=True))


def test_tensors_that_move_are_found_again() -> None:
    matrix = random_matrix("symmetric4")
    x = torch.randn(2, 192)
    before = packed_linear(x, matrix)
    with torch.no_grad():
        matrix.codes.set_(matrix.codes.clone().contiguous())  # type: ignore[call-overload]
    assert packed_linear(x, matrix).equal(before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scales", [torch.float16, torch.bfloat16])
def test_unpacking_gives_the_values(kind: str, dtype: torch.dtype, scales: torch.dtype) -> None:
    matrix = random_matrix(kind, 100, 416, 32, scales)
    whole = matrix.unpack().to(dtype)
    assert unpack(matrix, dtype=dtype).equal(whole)
    for tiles in (slice(0, 1), slice(2, 5), slice(6, 7), slice(6, 99), slice(3, 3)):
        assert unpack(matrix, tiles, dtype).equal(whole[tiles.start * 16 : tiles.stop * 16])


def test_tiles_to_unpack_are_neighbours() -> None:
    if native.available():
        with pytest.raises(InvalidInputError, match="step 2"):
            unpack(random_matrix("symmetric4"), slice(0, 3, 2))


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (torch.zeros(192), r"\(192,\)"),
        (torch.zeros(2, 3, 192), "rows, inputs"),
        (torch.zeros(2, 192, dtype=torch.int32), "int32"),
        (torch.zeros(2, 160), "160 inputs does not fit a matrix of 192"),
        (torch.zeros(2, 192, device="meta"), "move one of them"),
    ],
)
def test_rows_that_do_not_fit_are_refused(x: Tensor, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        packed_linear(x, random_matrix("symmetric4"))


def test_what_is_not_asked_for_well_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="0 matrices"):
        packed_linears(torch.zeros(2, 192), ())
    with pytest.raises(InvalidInputError, match="'int4'"):
        packed_linear(torch.zeros(2, 192), random_matrix("symmetric4"), "int4")  # type: ignore[arg-type]


def test_the_library_checks_its_arguments_too() -> None:
    if not native.available():
        pytest.skip("the library was not built")
    run = native.library().circius_packed_linears
    assert run(None, 0, 1, None, 1, 1) == 1
    assert native.library().circius_unpack(None, 0, 1, 0, None, 0, 1) == 1
