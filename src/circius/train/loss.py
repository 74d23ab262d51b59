"""The training loss, from hidden states: negative log-likelihoods with never more logits in memory than a slice.

Nothing here divides: a step's loss is the sum over all of its learnt tokens, in all micro-batches and processes,
divided once by how many they are. `(loss.total / n_of_the_step).backward()` gives each micro-batch its share.

Torch's own `linear_cross_entropy` cuts the logits too. It is not used, for what it does not do: its loss comes in the
dtype of the hidden states, so a sum over thousands of tokens in bfloat16 keeps two digits; it has no z-loss; and
tokens that are not learnt still go through the head, which in instruction tuning is most of the work.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from circius.base.errors import CirciusError, InvalidInputError
from circius.train.batch import IGNORED

_LOGITS_AT_ONCE = {"cpu": 2**24, "other": 2**26}
"""Numbers in one slice of logits: 64 MiB in float32 on a CPU, 256 MiB elsewhere. Each slice reads the whole head."""
_FEWEST_ROWS = 64
"""Of a slice, however large the vocabulary: fewer would read the head for too little work."""


class Loss(NamedTuple):
    """total: (), what gradients are taken of: the sum of the negative log-likelihoods of `n_tokens` tokens, plus z.

    z: (), z_loss times the sum of the squared log-normalisers; without a gradient of its own.
    """

    total: Tensor
    n_tokens: int
    z: Tensor

    @property
    def nll(self) -> Tensor:
        """(), the sum of the negative log-likelihoods alone, to be shown; without a gradient."""
        return self.total.detach() - self.z


def summed_loss(hidden: Tensor, head: Tensor, targets: Tensor, *, z_loss: float = 0.0) -> Loss:
    """The loss of hidden states (N, E), behind the final norm, whose logits are made by `head` (V, E).

    Logits, losses and sums are float32 whatever the dtype of the arguments. Gradients are worked out on the way, for
    the head only if it is trained, and can be asked for once.

    targets: (N,) int64, the ids that follow, or `IGNORED`. On the CPU they spare a GPU the waiting.
    z_loss: how strongly the log-normaliser of each token is pulled to 0 (PaLM takes 1e-4).

    Raises:
        InvalidInputError: shapes or dtypes that do not fit together, a target outside the vocabulary, or z_loss < 0.
    """
    if not 0 <= z_loss < math.inf:
        raise InvalidInputError(f"z_loss must be 0 or more, got {z_loss!r}")
    places, own = _learnt(hidden, head, targets)
    needs = (_is_trained(hidden), _is_trained(head))
    total, z = _SummedLoss.apply(hidden, head, places, own, z_loss, needs)  # type: ignore[no-untyped-call]
    return Loss(total, len(own), z)


def token_nll(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """(N,) float32: the negative log-likelihood of each target, 0 where it is `IGNORED`; arguments as `summed_loss`.

    For losses that weigh tokens after having seen them all: slices of logits are made again on the way back.

    Raises:
        InvalidInputError: as `summed_loss`.
    """
    places, own = _learnt(hidden, head, targets)
    nll: Tensor = _TokenNll.apply(hidden, head, places, own)  # type: ignore[no-untyped-call]
    return nll


def perplexity(nll: float, n_tokens: int) -> float:
    """exp of the mean; infinite where it is past the largest number.

    >>> round(perplexity(3 * math.log(8), 3), 6)
    8.0
    """
    if n_tokens < 1:
        raise InvalidInputError(f"a perplexity is a mean over 1 or more tokens, got {n_tokens}")
    mean = nll / n_tokens
    return math.exp(mean) if mean < 709 else math.inf


class _SummedLoss(torch.autograd.Function):
    """Takes the gradients while a slice of logits is there, so that none is made twice."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, places: Tensor, own: Tensor, z_loss: float, needs: tuple[bool, bool]
    ) -> tuple[Tensor, Tensor]:
        wide, by = _wide(hidden.dtype), _multiplied(head)
        total, z = hidden.new_zeros((), dtype=wide), hidden.new_zeros((), dtype=wide)
        hidden_grad = torch.zeros_like(hidden) if needs[0] else None
        head_grad = torch.zeros(head.shape, dtype=wide, device=head.device) if needs[1] else None
        for part in _slices(len(own), len(head), hidden.device):
            rows = hidden[places[part]].to(by.dtype)
            logits = _product(rows, by.T)
            spoken = logits.gather(1, own[part, None]).squeeze(1)
            highest = logits.amax(dim=-1)
            weights = logits.sub_(highest[:, None]).exp_()  # softmax but for its sum, in the logits' memory
            sums = weights.sum(dim=-1)
            norms = highest + sums.log()
            total += (norms - spoken).sum()
            z += z_loss * norms.square().sum()
            if not any(needs):
                continue
            grad = _less_target(weights.mul_(((1 + 2 * z_loss * norms) / sums)[:, None]), own[part]).to(by.dtype)
            if hidden_grad is not None:
                hidden_grad[places[part]] = _product(grad, by).to(hidden.dtype)
            if head_grad is not None:
                _add_product(head_grad, grad.T, rows)
        ctx.grads = (hidden_grad, head_grad)
        ctx.dtype = head.dtype
        ctx.mark_non_differentiable(z)
        return total + z, z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.grads is None:
            raise CirciusError("a loss's gradients can be taken once; compute the loss again to take them again")
        hidden_grad, head_grad = ctx.grads
        ctx.grads = None
        if hidden_grad is not None:
            hidden_grad.mul_(grad)
        if head_grad is not None:
            head_grad = head_grad.mul_(grad).to(ctx.dtype)
        return hidden_grad, head_grad, None, None, None, None


class _TokenNll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, places: Tensor, own: Tensor) -> Tensor:
        by = _multiplied(head)
        nll = hidden.new_zeros(len(hidden), dtype=_wide(hidden.dtype))
        all_norms = nll.new_empty(len(own))
        for part in _slices(len(own), len(head), hidden.device):
            logits = _product(hidden[places[part]].to(by.dtype), by.T)
            all_norms[part] = norms = logits.logsumexp(dim=-1)
            nll[places[part]] = norms - logits.gather(1, own[part, None]).squeeze(1)
        ctx.save_for_backward(hidden, head, places, own, all_norms)
        return nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, head, places, own, norms = ctx.saved_tensors
        by = _multiplied(head)
        hidden_grad = torch.zeros_like(hidden) if ctx.needs_input_grad[0] else None
        head_grad = torch.zeros(head.shape, dtype=grad.dtype, device=head.device) if ctx.needs_input_grad[1] else None
        for part in _slices(len(own), len(head), hidden.device):
            rows = hidden[places[part]].to(by.dtype)
            softmax = _product(rows, by.T).sub_(norms[part, None]).exp_()
            against = _less_target(softmax, own[part]).mul_(grad[places[part], None]).to(by.dtype)
            if hidden_grad is not None:
                hidden_grad[places[part]] = _product(against, by).to(hidden.dtype)
            if head_grad is not None:
                _add_product(head_grad, against.T, rows)
        return hidden_grad, None if head_grad is None else head_grad.to(head.dtype), None, None


def _learnt(hidden: Tensor, head: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Where something is learnt (n,), and what (n,), on the device of the hidden states."""
    if (
        hidden.ndim != 2
        or head.ndim != 2
        or head.shape[1] != hidden.shape[1]
        or targets.shape != hidden.shape[:1]
        or hidden.dtype != head.dtype
        or targets.dtype != torch.int64
    ):
        raise InvalidInputError(
            f"a loss takes hidden states (N, E), a head (V, E) of the same dtype and targets (N,) of int64, got "
            f"{tuple(hidden.shape)} of {hidden.dtype}, {tuple(head.shape)} of {head.dtype} and {tuple(targets.shape)} "
            f"of {targets.dtype}"
        )
    places = (targets != IGNORED).nonzero().squeeze(1)
    own = targets[places]
    if own.device.type == "cpu" and len(own) and (own.min() < 0 or own.max() >= len(head)):
        raise InvalidInputError(
            f"targets must be ids from 0 to {len(head) - 1}, or {IGNORED} for what is not learnt: got "
            f"{int(own.min())} to {int(own.max())}; are data and model of the same tokenizer?"
        )
    return places.to(hidden.device), own.to(hidden.device)


def _is_trained(x: Tensor) -> bool:
    return torch.is_grad_enabled() and x.requires_grad


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _multiplied(head: Tensor) -> Tensor:
    """The head as the products take it. Only CUDA multiplies narrow numbers into float32 ones; elsewhere they are
    widened for the length of one call."""
    return head if head.device.type == "cuda" else head.to(_wide(head.dtype))


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, not rounded back to narrow numbers."""
    if a.dtype == _wide(a.dtype):
        return a @ b
    return torch.mm(a, b, out_dtype=torch.float32)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b, without a product of its own where the products are as wide as the total."""
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    else:
        total += _product(a, b)


def _less_target(softmax: Tensor, own: Tensor) -> Tensor:
    """The gradient of each row's loss against its logits, the softmax minus the target, in its memory."""
    return softmax.scatter_add_(1, own[:, None], softmax.new_full((1, 1), -1.0).expand(len(own), 1))


def rows_at_once(n_vocab: int, device: str) -> int:
    """How many tokens' logits are made together on a device of that type.

    >>> rows_at_once(32_000, "cpu"), rows_at_once(32_000, "cuda")
    (524, 2097)
    """
    return max(_FEWEST_ROWS, _LOGITS_AT_ONCE["cpu" if device == "cpu" else "other"] // n_vocab)


def _slices(n_rows: int, n_vocab: int, device: torch.device) -> Iterator[slice]:
    size = rows_at_once(n_vocab, device.type)
    return (slice(begin, min(begin + size, n_rows)) for begin in range(0, n_rows, size))
