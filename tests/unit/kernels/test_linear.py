"""Products in a dtype that the processor is slow in: widened, and as near to the truth as the dtype allows."""

import pytest
import torch

from circius.kernels import linear as kernel
from circius.kernels import precision
from circius.kernels.attention import Stretch, attend
from circius.kernels.linear import linear
from circius.kernels.precision import multiplies_fast

pytestmark = pytest.mark.quick


@pytest.fixture(params=[True, False], ids=["fast", "slow"])
def _is_fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_has_cpu_kernels", lambda dtype: request.param)


@pytest.mark.usefixtures("_is_fast")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("n_rows", [1, kernel._WORTH_WIDENING - 1, kernel._WORTH_WIDENING, 40])
def test_the_product_is_rounded_once(dtype: torch.dtype, n_rows: int) -> None:
    x, weight = torch.randn(n_rows, 96).to(dtype), torch.randn(1100, 96).to(dtype)
    exact = x.double() @ weight.double().T
    with torch.inference_mode():
        found = linear(x, weight)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), exact, atol=1e-3, rtol=1.01 * torch.finfo(dtype).eps)


@pytest.mark.usefixtures("_is_fast")
def test_gradients_flow() -> None:
    x, weight = torch.randn(20, 8, dtype=torch.bfloat16), torch.randn(5, 8, dtype=torch.bfloat16, requires_grad=True)
    linear(x, weight).sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, x.sum(0).expand(5, 8), atol=0.2, rtol=0.02)


@pytest.mark.usefixtures("_is_fast")
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
