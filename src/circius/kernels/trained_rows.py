"""Norm, gate and the product behind the gate, in training: they keep what came in and nothing that was made of it.

Left to itself autograd keeps every step on the way, which for the feed-forward part alone is four tensors of its width
where two say all. What is missing is worked out again on the way back, by work that is small beside the products'.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from circius.kernels.rows import rms_norm, silu_times


def trained_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`rows.rms_norm` with gradients of x and the weight."""
    normed: Tensor = _RMSNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call]
    return normed


def trained_silu_times(gate: Tensor, up: Tensor) -> Tensor:
    """`rows.silu_times` with gradients of both."""
    gated: Tensor = _SiluTimes.apply(gate, up)  # type: ignore[no-untyped-call]
    return gated


def trained_gated_product(gate: Tensor, up: Tensor, weight: Tensor) -> Tensor:
    """silu(gate) * up, (N, F) both, times `weight` (E, F) transposed, as (N, E), with gradients of all three."""
    product: Tensor = _GatedProduct.apply(gate, up, weight)  # type: ignore[no-untyped-call]
    return product


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return rms_norm(x, weight, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        scale = torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + ctx.eps)
        quotient = wide * scale
        weight_grad = (grad * quotient.to(x.dtype)).sum(dim=0) if ctx.needs_input_grad[1] else None
        x_grad = None
        if ctx.needs_input_grad[0]:
            against = (grad * weight).to(wide.dtype)
            along = (against * quotient).mean(dim=-1, keepdim=True)
            x_grad = against.addcmul_(quotient, along, value=-1).mul_(scale).to(x.dtype)
        return x_grad, weight_grad, None


class _SiluTimes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return silu_times(gate, up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        return _against_gate(gate, up, grad)


class _GatedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up, weight)
        return torch.nn.functional.linear(silu_times(gate, up), weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        gate, up, weight = ctx.saved_tensors
        weight_grad = grad.T @ silu_times(gate, up) if ctx.needs_input_grad[2] else None
        if not (ctx.needs_input_grad[0] or ctx.needs_input_grad[1]):
            return None, None, weight_grad
        return *_against_gate(gate, up, grad @ weight), weight_grad


def _against_gate(gate: Tensor, up: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of gate and up, from that of their product."""
    wide = torch.promote_types(gate.dtype, torch.float32)
    open_ = torch.sigmoid(gate.to(wide))
    passed = gate * open_
    up_grad = (grad * passed).to(up.dtype)
    slope = open_.addcmul_(passed, 1 - open_)  # of silu: s + x s (1 - s)
    return slope.mul_(grad * up).to(gate.dtype), up_grad
