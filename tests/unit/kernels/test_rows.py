"""Row operations: near torch's, the same bits alone or among others, on any threads and instructions."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from circius.base.errors import InvalidInputError
from circius.kernels import native
from circius.kernels.rows import add_, rms_norm, rotate_, silu_times
from circius.model.rope import rotate, rotation_at

pytestmark = pytest.mark.quick

SIZES = [1, 7, 8, 33, 64, 100, 4096]
needs_native = pytest.mark.skipif(not native.available(), reason=f"needs the native library: {native.describe()}")


@pytest.fixture(params=[pytest.param("native", marks=needs_native), "torch"])
def _way(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.param == "native":
        yield
    else:
        with native.disabled():
            yield


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("size", SIZES)
def test_rms_norm_is_near_float64(size: int) -> None:
    x, weight = torch.randn(5, size) * 3, torch.randn(size)
    wide = x.double()
    exact = weight.double() * wide / (wide.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(rms_norm(x, weight, 1e-5).double(), exact, atol=0, rtol=1e-6)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("size", SIZES)
def test_silu_is_near_float64(size: int) -> None:
    gate, up = torch.randn(5, size) * 10, torch.randn(5, size)
    exact = F.silu(gate.double()) * up.double()
    torch.testing.assert_close(silu_times(gate, up).double(), exact, atol=0, rtol=4e-7)


@pytest.mark.usefixtures("_way")
def test_silu_at_its_ends() -> None:
    gate = torch.tensor([[0.0, -0.0, 90.0, -90.0, 3e38, -3e38, torch.inf, torch.nan]])
    found = silu_times(gate, torch.ones_like(gate))
    torch.testing.assert_close(found, F.silu(gate), equal_nan=True, atol=1e-35, rtol=1e-6)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("head_dim", [2, 6, 16, 64, 128])
def test_a_rotation_has_the_bits_of_the_model(head_dim: int) -> None:
    x = torch.randn(4, 3, head_dim)
    rotation = rotation_at(torch.tensor([0, 1, 500, 2**25]), head_dim=head_dim, theta=10000.0)
    expected = rotate(x, rotation)
    assert rotate_(x, *rotation) is x
    assert x.equal(expected)


@pytest.mark.usefixtures("_way")
def test_a_rotation_in_a_part_of_wider_rows() -> None:
    rows = torch.randn(5, 200)
    rotation = rotation_at(torch.arange(5), head_dim=32, theta=10000.0)
    before = rows.clone()
    rotate_(rows[:, 20:116].view(5, 3, 32), *rotation)
    assert rows[:, 20:116].equal(rotate(before[:, 20:116].view(5, 3, 32), rotation).flatten(1))
    assert rows[:, :20].equal(before[:, :20])
    assert rows[:, 116:].equal(before[:, 116:])


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("size", SIZES)
def test_add_is_torchs(size: int) -> None:
    x, y = torch.randn(5, size), torch.randn(5, 2 * size)[:, size:]
    expected = x + y
    assert add_(x, y) is x
    assert x.equal(expected)


def _all_of(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    heads = x.clone().view(len(x), -1, 4)
    rotate_(heads, y[:, None, :4], y[:, None, 4:8])
    return rms_norm(x, torch.linspace(0.5, 2, x.shape[1]), 1e-5), silu_times(x, y), add_(x.clone(), y), heads


@needs_native
@pytest.mark.parametrize("size", [8, 100, 4096])
def test_a_row_alone_has_the_bits_it_has_among_others(size: int) -> None:
    x, y = torch.randn(40, size), torch.randn(40, size)
    together = _all_of(x, y)
    for row in (0, 17, 39):
        alone = _all_of(x[row : row + 1], y[row : row + 1])
        assert all(a[0].equal(b[row]) for a, b in zip(alone, together, strict=True))


@needs_native
def test_threads_and_instructions_change_no_bit() -> None:
    x, y = torch.randn(40, 4100), torch.randn(40, 4100)
    expected = _all_of(x, y)
    torch.set_num_threads(2)
    try:
        assert all(a.equal(b) for a, b in zip(_all_of(x, y), expected, strict=True))
    finally:
        torch.set_num_threads(1)
    with native.forced("portable"):
        assert all(a.equal(b) for a, b in zip(_all_of(x, y), expected, strict=True))


def test_gradients_take_torchs_way() -> None:
    x, weight = torch.randn(3, 16, requires_grad=True), torch.randn(16)
    (rms_norm(x, weight, 1e-5).sum() + silu_times(x, x).sum()).backward()
    assert x.grad is not None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_dtypes_stay_narrow(dtype: torch.dtype) -> None:
    x, weight = torch.randn(3, 16).to(dtype), torch.randn(16).to(dtype)
    for found in (rms_norm(x, weight, 1e-5), silu_times(x, x), add_(x.clone(), x)):
        assert found.dtype == dtype


def test_no_rows() -> None:
    nothing = torch.empty(0, 8)
    assert rms_norm(nothing, torch.ones(8), 1e-5).shape == (0, 8)
    assert silu_times(nothing, nothing).shape == (0, 8)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: rms_norm(torch.ones(2, 8), torch.ones(7), 1e-5),
        lambda: silu_times(torch.ones(2, 8), torch.ones(2, 7)),
        lambda: add_(torch.ones(2, 8), torch.ones(1, 8)),
        lambda: rotate_(torch.ones(2, 3, 8), torch.ones(2, 1, 6), torch.ones(2, 1, 6)),
        lambda: rotate_(torch.ones(2, 3, 7), torch.ones(2, 1, 7), torch.ones(2, 1, 7)),
    ],
)
def test_what_does_not_fit_is_refused(wrong: object) -> None:
    assert callable(wrong)
    with pytest.raises(InvalidInputError):
        wrong()
