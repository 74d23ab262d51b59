"""What a layer does to rows besides products and attention: normalise, rotate, gate, add.

In float32 on the CPU, without gradients, the native kernels do it in one pass over each row (csrc/rows.h says with
which numbers); everywhere else torch does. A row's result never depends on the other rows.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from circius.base.errors import InvalidInputError
from circius.kernels import native


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Rows `x` (N, E) divided by their root mean square, times `weight` (E,), in the dtype of x.

    As in transformers' MistralRMSNorm the quotient is rounded to the dtype of x before it takes the weight.
    """
    if x.ndim != 2 or weight.shape != x.shape[1:]:
        raise InvalidInputError(f"RMSNorm takes (rows, {len(weight)}) with this weight, got {tuple(x.shape)}")
    if not _runs_native(x, weight):
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        scale = torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)
        return weight * (wide * scale).to(x.dtype)
    out = torch.empty(x.shape)
    _call("circius_rms_norm", x, x.stride(0), weight, eps, *x.shape, out, out.stride(0))
    return out


def rotate_(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns `x` (N, heads, D) in place by the angles of `cos` and `sin` (N, 1, D), and returns it.

    Rotate-half order, the same bits as `rotate` of model/rope.py: products and their sum are rounded one by one.
    """
    if x.ndim != 3 or cos.shape != (len(x), 1, x.shape[2]) or sin.shape != cos.shape or x.shape[2] % 2:
        raise InvalidInputError(
            f"a rotation takes (tokens, heads, an even D) with cosines and sines (tokens, 1, D), got {tuple(x.shape)} "
            f"with {tuple(cos.shape)} and {tuple(sin.shape)}"
        )
    cos, sin = cos.contiguous(), sin.contiguous()
    if _runs_native(x, cos, sin) and x.stride(1) == x.shape[2]:
        _call("circius_rotate", x, x.stride(0), cos, sin, *x.shape)
        return x
    wide = x.float()
    first, second = wide.chunk(2, dim=-1)
    return x.copy_(wide * cos + torch.cat((-second, first), dim=-1) * sin)


def silu_times(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up of two (N, n), in their dtype; silu to a relative 3e-7 in float32."""
    _check_pair(gate, up)
    if not _runs_native(gate, up):
        return F.silu(gate) * up
    out = torch.empty(gate.shape)
    _call("circius_silu_times", gate, gate.stride(0), up, up.stride(0), *gate.shape, out, out.stride(0))
    return out


def add_(x: Tensor, y: Tensor) -> Tensor:
    """Adds `y` to `x`, both (N, n), in place, and returns x."""
    _check_pair(x, y)
    if not _runs_native(x, y):
        return x.add_(y)
    _call("circius_add_rows", x, x.stride(0), y, y.stride(0), *x.shape)
    return x


def _check_pair(x: Tensor, y: Tensor) -> None:
    if x.ndim != 2 or x.shape != y.shape or x.dtype != y.dtype:
        raise InvalidInputError(
            f"two tensors (rows, n) of one shape and dtype are needed, got {tuple(x.shape)} of {x.dtype} and "
            f"{tuple(y.shape)} of {y.dtype}"
        )


def _runs_native(*tensors: Tensor) -> bool:
    return (
        native.available()
        and all(
            x.dtype == torch.float32 and x.device.type == "cpu" and x.stride(-1) == 1 and x.numel() > 0 for x in tensors
        )
        and not (torch.is_grad_enabled() and any(x.requires_grad for x in tensors))
    )


def _call(name: str, *arguments: Tensor | float) -> None:
    places = (x.data_ptr() if isinstance(x, Tensor) else x for x in arguments)
    native.check(_function(name)(*places, native.n_threads()))


@cache
def _function(name: str) -> Callable[..., int]:
    place, count, number, workers = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int
    arguments: dict[str, list[Any]] = {
        "circius_rms_norm": [place, count, place, number, count, count, place, count, workers],
        "circius_rotate": [place, count, place, place, count, count, count, workers],
        "circius_silu_times": [place, count, place, count, count, count, place, count, workers],
        "circius_add_rows": [place, count, place, count, count, count, workers],
    }
    function = native.library()[name]
    function.argtypes = arguments[name]
    return function
