"""Products with plain weights: rounded once, and by the native kernels with the same bits for one row and for many."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from circius.base.errors import InvalidInputError
from circius.kernels import linear as kernel
from circius.kernels import native, precision
from circius.kernels.attention import Stretch, attend
from circius.kernels.linear import linear, linears
from circius.kernels.precision import multiplies_fast

pytestmark = pytest.mark.quick

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
needs_native = pytest.mark.skipif(not native.available(), reason=f"needs the native library: {native.describe()}")


@pytest.fixture(params=["native", "fast", "slow"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Our own kernels, torch with units for 16 bits, torch without them."""
    monkeypatch.setattr(precision, "_has_cpu_kernels", lambda dtype: request.param == "fast")
    if request.param == "native":
        if not native.available():
            pytest.skip(native.describe())
        monkeypatch.setattr(kernel, "_MOST_NATIVE_ROWS", {"fast": 10**9, "slow": 10**9})
        yield
    else:
        with native.disabled():
            yield


@pytest.fixture
def _all_native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_MOST_NATIVE_ROWS", {"fast": 10**9, "slow": 10**9})


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_rows", [1, 2, kernel._WORTH_WIDENING - 1, kernel._WORTH_WIDENING, 40, 250])
def test_the_product_is_rounded_once(dtype: torch.dtype, n_rows: int) -> None:
    x, weight = torch.randn(n_rows, 96).to(dtype), torch.randn(1100, 96).to(dtype)
    exact = x.double() @ weight.double().T
    with torch.inference_mode():
        found = linear(x, weight)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), exact, atol=1e-3, rtol=1.01 * torch.finfo(dtype).eps)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_inputs", [1, 7, 16, 33, 511, 512, 513, 1100])
@pytest.mark.parametrize("n_outputs", [1, 3, 17, 66])
def test_odd_sizes(dtype: torch.dtype, n_inputs: int, n_outputs: int) -> None:
    x, weight = torch.randn(5, n_inputs).to(dtype), torch.randn(n_outputs, n_inputs).to(dtype)
    exact = x.double().numpy() @ weight.double().numpy().T
    with torch.inference_mode():
        found = linear(x, weight)
    torch.testing.assert_close(found.double().numpy(), exact, atol=1e-3, rtol=1.01 * torch.finfo(dtype).eps)


@needs_native
@pytest.mark.usefixtures("_all_native")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_inputs", [100, 1100])
def test_rows_alone_have_the_bits_they_have_among_others(dtype: torch.dtype, n_inputs: int) -> None:
    x, weight = torch.randn(300, n_inputs).to(dtype), torch.randn(130, n_inputs).to(dtype)
    with torch.inference_mode():
        together = linear(x, weight)
        for begin, end in ((0, 1), (17, 19), (250, 253), (3, 8), (11, 27), (0, 245)):
            assert linear(x[begin:end], weight).equal(together[begin:end])
        assert linear(x, weight[40:61]).equal(together[:, 40:61])


@needs_native
@pytest.mark.usefixtures("_all_native")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_rows", [1, 8, 100])
def test_threads_change_no_bit(dtype: torch.dtype, n_rows: int) -> None:
    x, weight = torch.randn(n_rows, 1100).to(dtype), torch.randn(300, 1100).to(dtype)
    with torch.inference_mode():
        expected = linear(x, weight)
        torch.set_num_threads(2)
        try:
            assert linear(x, weight).equal(expected)
        finally:
            torch.set_num_threads(1)


@pytest.mark.usefixtures("_way")
def test_several_weights_at_once() -> None:
    x, weights = torch.randn(3, 64), [torch.randn(n, 64) for n in (20, 1, 7)]
    with torch.inference_mode():
        assert all(a.equal(linear(x, w)) for a, w in zip(linears(x, weights), weights, strict=True))


@pytest.mark.usefixtures("_way")
def test_a_bad_number_stays_in_its_row() -> None:
    x, weight = torch.randn(4, 64), torch.randn(8, 64)
    x[1, 3] = torch.nan
    with torch.inference_mode():
        found = linear(x, weight)
    assert found[1].isnan().all()
    assert found[[0, 2, 3]].isfinite().all()


@pytest.mark.usefixtures("_way")
def test_rows_that_lie_apart() -> None:
    wide, weight = torch.randn(6, 200), torch.randn(8, 64)
    x = wide[:, 20:84]
    with torch.inference_mode():
        expected = linear(x.clone(), weight)
        torch.testing.assert_close(linear(x, weight), expected)
        torch.testing.assert_close(linear(x.T.contiguous().T, weight), expected)
        torch.testing.assert_close(linear(x, weight.T.contiguous().T), expected)


@pytest.mark.usefixtures("_all_native")
def test_a_mapped_weight_is_read_in_place_to_its_last_byte(tmp_path: Path) -> None:
    """The weight ends where the file ends, at the end of a page, beyond which nothing may be touched."""
    n_outputs, n_inputs = 8, 1024 + 2048 // 8  # 20 KiB in float16
    weight = torch.randn(n_outputs, n_inputs).half()
    file = tmp_path / "weight"
    file.write_bytes(weight.numpy().tobytes())
    mapped = torch.from_numpy(np.memmap(file, dtype=np.float16, mode="c").reshape(n_outputs, n_inputs))
    x = torch.randn(1, n_inputs).half()
    with torch.inference_mode():
        assert linear(x, mapped).equal(linear(x, weight))


@pytest.mark.usefixtures("_way")
def test_nothing_times_something() -> None:
    with torch.inference_mode():
        assert linear(torch.empty(0, 8), torch.ones(3, 8)).shape == (0, 3)
        assert linear(torch.ones(3, 8), torch.empty(0, 8)).shape == (3, 0)
        assert linear(torch.ones(2, 0), torch.ones(3, 0)).equal(torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("x", "weight"),
    [
        (torch.ones(2, 8), torch.ones(3, 7)),
        (torch.ones(8), torch.ones(3, 8)),
        (torch.ones(2, 8), torch.ones(3, 8, dtype=torch.bfloat16)),
    ],
)
def test_what_does_not_fit_is_refused(x: torch.Tensor, weight: torch.Tensor) -> None:
    with pytest.raises(InvalidInputError, match="a product takes"):
        linear(x, weight)


@pytest.mark.usefixtures("_way")
def test_gradients_flow() -> None:
    x, weight = torch.randn(20, 8, dtype=torch.bfloat16), torch.randn(5, 8, dtype=torch.bfloat16, requires_grad=True)
    linear(x, weight).sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, x.sum(0).expand(5, 8), atol=0.2, rtol=0.02)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_attention_stays_near_float32(dtype: torch.dtype) -> None:
    query, keys, values = torch.randn(1, 9, 4, 32), torch.randn(1, 2, 30, 32), torch.randn(1, 2, 30, 32)
    seen = torch.arange(30) <= torch.arange(21, 30)[:, None]
    exact = attend(query, [Stretch(keys, values, seen[None])])
    found = attend(query.to(dtype), [Stretch(keys.to(dtype), values.to(dtype), seen[None])])
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), exact, atol=0.03, rtol=0.03)


def test_float32_and_gpus_are_always_fast() -> None:
    assert multiplies_fast(torch.float32, torch.device("cpu"))
    assert multiplies_fast(torch.bfloat16, torch.device("cuda"))
    assert not multiplies_fast(torch.float64, torch.device("cpu"))
