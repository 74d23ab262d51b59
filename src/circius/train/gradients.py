"""The norm of all gradients together, and scaling them down to a limit."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm

from circius.base.errors import InvalidInputError

_EPS = 1e-6


def clip_gradients(parameters: Iterable[Tensor], max_norm: float | None) -> float:
    """The Euclidean norm of the gradients of `parameters`, all as one vector, before they were scaled.

    They are scaled down to `max_norm` if their norm is above it; not at all for None, or if the norm is no number.
    Gradients that are spread over processes count whole, and every process must call this.

    Raises:
        InvalidInputError: max_norm is not above 0.
    """
    if max_norm is not None and not max_norm > 0:
        raise InvalidInputError(f"gradients are clipped to a norm above 0, got {max_norm!r}")
    by_mesh: dict[DeviceMesh | None, list[Tensor]] = {}  # an operation takes tensors that are spread alike
    for parameter in parameters:
        own = parameter.grad
        if own is not None:
            by_mesh.setdefault(own.device_mesh if isinstance(own, DTensor) else None, []).append(own)
    norm = math.hypot(*(_norm(gradients) for gradients in by_mesh.values()))
    if max_norm is not None and max_norm < norm < math.inf:
        with torch.no_grad():
            for gradients in by_mesh.values():
                torch._foreach_mul_(gradients, max_norm / (norm + _EPS))
    return norm


def _norm(gradients: list[Tensor]) -> float:
    norm = get_total_norm(gradients)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
