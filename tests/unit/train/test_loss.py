"""The loss against torch's cross-entropy over all logits, in float64: values, gradients, and what is never made."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from circius.base.errors import CirciusError, InvalidInputError
from circius.train import loss as module
from circius.train.batch import IGNORED
from circius.train.loss import perplexity, summed_loss, token_nll

N, E, V = 150, 16, 40


@pytest.fixture(autouse=True)
def _short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 7 rows, so that there are many and the last is shorter."""
    monkeypatch.setattr(module, "_LOGITS_AT_ONCE", {"cpu": 7 * V, "other": 7 * V})
    monkeypatch.setattr(module, "_FEWEST_ROWS", 1)


def _case(dtype: torch.dtype = torch.float64, n: int = N) -> tuple[Tensor, Tensor, Tensor]:
    hidden, head = torch.randn(n, E, dtype=dtype), 0.5 * torch.randn(V, E, dtype=dtype)
    targets = torch.randint(V, (n,))
    targets[torch.rand(n) < 0.4] = IGNORED
    return hidden.requires_grad_(), head.requires_grad_(), targets


def _plain(hidden: Tensor, head: Tensor, targets: Tensor, z_loss: float = 0.0) -> tuple[Tensor, Tensor]:
    logits = hidden @ head.T
    norms = logits.logsumexp(-1)[targets != IGNORED]
    return F.cross_entropy(logits, targets, reduction="sum", ignore_index=IGNORED), z_loss * norms.square().sum()


def _gradients(total: Tensor, *of: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(total, of)


@pytest.mark.parametrize("z_loss", [0.0, 0.01])
def test_equals_torchs_over_all_logits(z_loss: float) -> None:
    hidden, head, targets = _case()
    nll, z = _plain(hidden, head, targets, z_loss)
    found = summed_loss(hidden, head, targets, z_loss=z_loss)
    assert found.n_tokens == int((targets != IGNORED).sum())
    torch.testing.assert_close(found.total, nll + z, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.z, z.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(found.nll, nll.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(
        _gradients(found.total / 7, hidden, head), _gradients((nll + z) / 7, hidden, head), rtol=1e-10, atol=1e-12
    )


def test_tokens_one_by_one_equal_torchs_however_they_are_weighed() -> None:
    hidden, head, targets = _case()
    weights = torch.randn(N, dtype=torch.float64)
    expected = F.cross_entropy(hidden @ head.T, targets, reduction="none", ignore_index=IGNORED)
    found = token_nll(hidden, head, targets)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert found[targets == IGNORED].count_nonzero() == 0
    torch.testing.assert_close(
        _gradients(found @ weights, hidden, head), _gradients(expected @ weights, hidden, head), rtol=1e-10, atol=1e-12
    )
    few = tuple(x.detach()[:9].requires_grad_() for x in (hidden, head))
    assert torch.autograd.gradcheck(lambda h, w: token_nll(h, w, targets[:9] % 9), few)


def test_parts_add_up_to_the_whole() -> None:
    """Micro-batches of any size: losses and gradients of the step are those of one batch."""
    hidden, head, targets = _case(torch.float32)
    whole = summed_loss(hidden, head, targets)
    expected = _gradients(whole.total / whole.n_tokens, hidden, head)
    hidden_grad, head_grad, total = torch.zeros_like(hidden), torch.zeros_like(head), 0.0
    for part in torch.arange(N).split([1, 40, 60, 49]):
        own = summed_loss(hidden[part], head, targets[part])
        of_hidden, of_head = _gradients(own.total / whole.n_tokens, hidden, head)
        hidden_grad += of_hidden
        head_grad += of_head
        total += float(own.total.detach())
    assert total == pytest.approx(float(whole.total.detach()), rel=1e-6)
    torch.testing.assert_close((hidden_grad, head_grad), expected, rtol=1e-5, atol=1e-6)


def test_bfloat16_is_summed_in_float32() -> None:
    """The products are bfloat16's own; what is made of them is not rounded until the gradients go back."""
    hidden, head, targets = (x.detach().bfloat16() if x.is_floating_point() else x for x in _case())
    exact = [x.double().requires_grad_() for x in (hidden, head)]
    expected, _ = _plain(*exact, targets)
    hidden.requires_grad_()
    head.requires_grad_()
    for total in (summed_loss(hidden, head, targets).total, token_nll(hidden, head, targets).sum()):
        assert total.dtype == torch.float32
        assert float(total.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
        for found, wanted in zip(_gradients(total, hidden, head), _gradients(expected, *exact), strict=False):
            assert found.dtype == torch.bfloat16
            assert (found.double() - wanted).norm() / wanted.norm() < 2**-8
        expected, _ = _plain(*exact, targets)


def test_what_is_frozen_gets_no_gradient() -> None:
    hidden, head, targets = _case()
    expected = _gradients(_plain(hidden, head, targets)[0], hidden, head)
    for function in (lambda h, w: summed_loss(h, w, targets).total, lambda h, w: token_nll(h, w, targets).sum()):
        assert not function(hidden.detach(), head.detach()).requires_grad
        torch.testing.assert_close(_gradients(function(hidden, head.detach()), hidden)[0], expected[0])
        torch.testing.assert_close(_gradients(function(hidden.detach(), head), head)[0], expected[1])
        with torch.no_grad():
            assert not function(hidden, head).requires_grad


class _Watch(TorchDispatchMode):
    """What is multiplied, and the largest thing that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.largest = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.largest = max(self.largest, out.numel())
        if func is torch.ops.aten.mm.default and out.shape[-1] == V:
            self.rows += len(out)
        return out


def test_only_learnt_rows_meet_the_head_and_only_a_slice_at_a_time() -> None:
    hidden, head, targets = _case(n=400)
    with _Watch() as watch, torch.no_grad():
        summed_loss(hidden, head, targets)
    assert watch.rows == int((targets != IGNORED).sum()) < 300
    assert 7 * V <= watch.largest <= max(V * E, 400 * E) < 400 * V
    with _Watch() as watch:
        _gradients(summed_loss(hidden, head, targets).total, hidden, head)
    assert watch.largest == 400 * E


def test_nothing_learnt_is_a_loss_of_0_with_gradients_of_0() -> None:
    hidden, head, _ = _case()
    found = summed_loss(hidden, head, torch.full((N,), IGNORED))
    assert (float(found.total.detach()), found.n_tokens) == (0.0, 0)
    assert all(not grad.any() for grad in _gradients(found.total, hidden, head))


def test_a_second_time_backwards_is_refused() -> None:
    hidden, head, targets = _case()
    total = summed_loss(hidden, head, targets).total
    total.backward(retain_graph=True)
    with pytest.raises(CirciusError, match="can be taken once"):
        total.backward()


@pytest.mark.parametrize(
    ("hidden", "head", "targets", "complaint"),
    [
        (torch.ones(3, 4), torch.ones(5, 4), torch.tensor([0, 5, 1]), r"ids from 0 to 4, .* got 0 to 5; .* tokenizer"),
        (torch.ones(3, 4), torch.ones(5, 4), torch.tensor([0, -1, 1]), "got -1 to 1"),
        (torch.ones(3, 4), torch.ones(5, 4), torch.tensor([0, 1]), r"takes hidden states \(N, E\)"),
        (torch.ones(3, 4), torch.ones(5, 4), torch.ones(3), "targets"),
        (torch.ones(3, 4), torch.ones(5, 3), torch.tensor([0, 1, 2]), r"\(5, 3\)"),
        (torch.ones(3, 4), torch.ones(5, 4).bfloat16(), torch.tensor([0, 1, 2]), "of torch.bfloat16"),
    ],
)
def test_what_does_not_fit_is_refused(hidden: Tensor, head: Tensor, targets: Tensor, complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        summed_loss(hidden, head, targets)


@pytest.mark.parametrize("z_loss", [-0.1, math.nan, math.inf])
def test_a_z_loss_that_is_none_is_refused(z_loss: float) -> None:
    with pytest.raises(InvalidInputError, match="z_loss must be 0 or more"):
        summed_loss(*_case(), z_loss=z_loss)


def test_perplexity() -> None:
    assert perplexity(6 * math.log(3.5), 6) == pytest.approx(3.5)
    assert perplexity(1e6, 1) == math.inf
    with pytest.raises(InvalidInputError, match="1 or more tokens, got 0"):
        perplexity(0.0, 0)
