"""A whole decoder layer with packed weights in one call of the native library, and one gathering of its threads.

The numbers are those of the layer's parts called one by one (norms, packed products of 8-bit activations, rotation,
attention over the rings, SwiGLU); what is saved is the way between them, which counts where a token takes milliseconds.
"""

import ctypes
import struct
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

from circius.kernels import native
from circius.kernels.packed import PackedMatrix
from circius.kernels.packed_linear import described
from circius.kernels.ring_attention import RingAttention

MOST_TOKENS = 512
"""CIRCIUS_LINEARS_MOST_ROWS: a call takes no more."""
_NORMS = struct.Struct("PP")
_EPS = struct.Struct("f4x")


class PackedLayer:
    """The weights of one layer, as the library sees them.

    norms: the weights (dim,) in float32 of the norms before the attention and before the feed-forward part.
    matrices: query, key, value, output, gate, up and down.
    """

    def __init__(self, norms: tuple[Tensor, Tensor], eps: float, matrices: Sequence[PackedMatrix]) -> None:
        assert len(matrices) == 7, len(matrices)
        assert all(norm.dtype == torch.float32 and norm.is_contiguous() for norm in norms)
        self._alive = (norms, tuple(matrices))  # whose addresses are in what follows
        pointers = _NORMS.pack(*(norm.data_ptr() for norm in norms))
        self._described = pointers + b"".join(map(described, matrices)) + _EPS.pack(eps)

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor, attention: RingAttention, layer: int) -> None:
        """Makes of `x` (N, dim), float32, what the layer makes of it, in place; N is at most `MOST_TOKENS`.

        cos, sin: (N, 1, D) in float32. layer: the index among the layers of the attention's rings.
        """
        assert x.dtype == cos.dtype == sin.dtype == torch.float32
        assert all(part.is_contiguous() for part in (x, cos, sin))
        assert len(x) <= MOST_TOKENS, len(x)
        call = attention.described(layer, head_dim=cos.shape[-1])
        code = _function()(self._described, call, x.data_ptr(), cos.data_ptr(), sin.data_ptr(), len(x))
        native.check(code)


@cache
def _function() -> Callable[..., int]:
    pointer = ctypes.c_void_p
    function = native.library()["circius_packed_layer"]
    function.argtypes = [ctypes.c_char_p, pointer, pointer, pointer, pointer, ctypes.c_int64]
    return function
