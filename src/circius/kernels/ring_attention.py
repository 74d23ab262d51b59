"""Attention over rings, pages and new tokens by position, in the native library: decoding, drafts and pre-fill alike.

Nothing is copied out of a ring, keys and values are never expanded over the query heads, and a chunk may be longer than
the window. A query's result is the same to the last bit however the tokens were cut into chunks and batches, whatever
the capacity of the ring, the pages and the number of threads (`csrc/attention.h` says how).
"""

import ctypes
from array import array
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from circius.base.config import Window
from circius.kernels import native

_FORMATS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.int8: 3}
_MAX_HEAD_DIM = 256
PAGE = 64
"""Positions of a page: CIRCIUS_BLOCK in csrc/attention.h."""


class Rings(NamedTuple):
    """B rings of S slots in each of L layers; the token at position p stands in slot p mod S.

    keys, values: (L, B, K, S, D). key_scales, value_scales: (L, B, K, S) float32 if those are int8 codes, else None.
    """

    keys: Tensor
    values: Tensor
    key_scales: Tensor | None = None
    value_scales: Tensor | None = None


class NewTokens(NamedTuple):
    """Consecutive new tokens of one sequence from position `start`, and the ring that holds what was before them.

    rings None: a sequence without a past, whose keys are kept nowhere.
    """

    rings: Rings | None
    row: int
    start: int
    n_tokens: int


class Pages(NamedTuple):
    """P pages of 64 positions in each of L layers; the token at position p stands in slot p mod 64 of its page.

    keys, values: (L, P, K, 64, D). key_scales, value_scales: (L, P, K, 64) float32 if those are int8 codes, else None.
    """

    keys: Tensor
    values: Tensor
    key_scales: Tensor | None = None
    value_scales: Tensor | None = None


class NewPagedTokens(NamedTuple):
    """Consecutive new tokens of one sequence from position `start`, and the pages of it and of what is before them.

    `n_pages` entries of `table` from `first_entry` on are those of the positions from 64 * `first_page` on; they reach
    from the oldest token that is seen to the last new one. The table holds C ints, and must not change.
    """

    pages: Pages
    table: "array[int]"
    first_entry: int
    n_pages: int
    first_page: int
    start: int
    n_tokens: int


class Workspace:
    """Memory for intermediate results, which grows when it must. One computation at a time may use it."""

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)

    def at_least(self, n_bytes: int) -> int:
        """The address of at least that many bytes, with anything in them."""
        if len(self._memory) < n_bytes:
            self._memory = torch.empty(n_bytes, dtype=torch.uint8)
        return self._memory.data_ptr()


class _Row(ctypes.Structure):
    """struct circius_attention_row"""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("keys", "values", "key_scales", "value_scales")),
        *((name, ctypes.c_int64) for name in ("layer_bytes", "layer_scales", "n_slots")),
        ("pages", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("first_page", "n_pages", "page_bytes", "page_scales")),
        *((name, ctypes.c_int64) for name in ("start", "n_tokens")),
        *((name, ctypes.c_int64) for name in ("first_token", "first_item", "item_queries")),
    )


class _Call(ctypes.Structure):
    """struct circius_attention"""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("query", "key", "value", "out")),
        *((name, ctypes.c_int64) for name in ("query_stride", "key_stride", "value_stride", "out_stride")),
        ("rows", ctypes.POINTER(_Row)),
        *((name, ctypes.c_int64) for name in ("n_rows", "window", "layer")),
        ("workspace", ctypes.c_void_p),
        ("workspace_bytes", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("n_heads", "n_kv_heads", "head_dim")),
        *((name, ctypes.c_int32) for name in ("format", "cache_format", "n_workers")),
    )


@cache
def _library() -> ctypes.CDLL:
    """The library, told the types of the functions used here."""
    library = native.library()
    library.circius_attend.argtypes = [ctypes.c_void_p]
    library.circius_attention_workspace.argtypes = [ctypes.c_int64, *[ctypes.c_int32] * 4]
    library.circius_attention_workspace.restype = ctypes.c_int64
    return library


def is_fast() -> bool:
    """Whether the library is there, and has instructions for the arithmetic of attention."""
    return native.available() and bool(native.library().circius_attention_is_fast())


def attends_natively(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether `RingAttention` takes these tensors (N, heads, D): on the CPU, without gradients, with a fast library."""
    return (
        query.device.type == "cpu"
        and query.dtype == key.dtype == value.dtype
        and query.dtype in _FORMATS
        and query.shape[-1] <= _MAX_HEAD_DIM
        and not (torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad))
        and is_fast()
    )


class RingAttention:
    """The attention of some rows' new tokens, worked out once and called for each layer that shares the window.

    rows: their new tokens stand on one flat axis in this order. cache_dtype: that of the rings: float32, float16 (where
    numbers past 65,504 become 65,504), bfloat16, or int8 with a scale for each token and head; for rows without rings
    the dtype of the model.
    """

    def __init__(
        self,
        rows: Sequence[NewTokens | NewPagedTokens],
        *,
        n_heads: int,
        n_kv_heads: int,
        window: Window,
        cache_dtype: torch.dtype,
        workspace: Workspace,
    ) -> None:
        self._rows = rows  # keeps the tensors alive whose addresses are in the table
        self._table = (_Row * len(rows))()
        self._n_tokens = 0
        for entry, row in zip(self._table, rows, strict=True):
            entry.start, entry.n_tokens, entry.first_token = row.start, row.n_tokens, self._n_tokens
            self._n_tokens += row.n_tokens
            if isinstance(row, NewPagedTokens):
                _point_to_pages(entry, row)
            elif row.rings is not None:
                _point_to(entry, row.rings, row.row)
        self._workspace = workspace
        self._heads = (n_heads, n_kv_heads)
        self._call = _Call(
            rows=self._table, n_rows=len(rows), window=window or 0, cache_format=_FORMATS[cache_dtype],
            n_heads=n_heads, n_kv_heads=n_kv_heads,
        )  # fmt: skip
        self._address = ctypes.addressof(self._call)

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """query (N, H, D), key and value (N, K, D) of layer `layer` of the rings, to (N, H, D); the rings take the
        last S new keys and values of each row."""
        n_tokens, head_dim = self._n_tokens, query.shape[2]
        assert query.shape == (n_tokens, self._heads[0], head_dim), (query.shape, n_tokens, self._heads)
        assert key.shape == value.shape == (n_tokens, self._heads[1], head_dim), (key.shape, value.shape)
        query, key, value = _dense_heads(query), _dense_heads(key), _dense_heads(value)
        out = torch.empty(query.shape, dtype=query.dtype)
        call = self._call
        call.query, call.key, call.value, call.out = query.data_ptr(), key.data_ptr(), value.data_ptr(), out.data_ptr()
        call.query_stride, call.key_stride, call.value_stride = query.stride(0), key.stride(0), value.stride(0)
        call.out_stride, call.format = out.stride(0), _FORMATS[query.dtype]
        native.check(_library().circius_attend(self.described(layer, head_dim=head_dim)))
        return out

    def described(self, layer: int, *, head_dim: int) -> int:
        """The address of the library's description of this, complete but for the tensors of new tokens.

        It is valid until the next call, of this or of another attention that shares the workspace.
        """
        call, n_workers = self._call, native.n_threads()
        if call.head_dim != head_dim or call.n_workers != n_workers:
            call.head_dim, call.n_workers = head_dim, n_workers
            call.workspace_bytes = _library().circius_attention_workspace(
                self._n_tokens, *self._heads, head_dim, n_workers
            )
        call.layer = layer
        call.workspace = self._workspace.at_least(call.workspace_bytes)
        return self._address


def _point_to(entry: _Row, rings: Rings, row: int) -> None:
    keys, scales = rings.keys, rings.key_scales
    assert keys.is_contiguous()
    assert rings.values.is_contiguous()
    row_bytes, entry.layer_bytes = (keys.stride(axis) * keys.element_size() for axis in (1, 0))
    entry.n_slots = keys.shape[3]
    entry.keys = keys.data_ptr() + row * row_bytes
    entry.values = rings.values.data_ptr() + row * row_bytes
    if scales is not None and rings.value_scales is not None:
        entry.layer_scales = scales.stride(0)
        entry.key_scales = scales.data_ptr() + row * scales.stride(1) * scales.element_size()
        entry.value_scales = rings.value_scales.data_ptr() + row * scales.stride(1) * scales.element_size()


def _point_to_pages(entry: _Row, row: NewPagedTokens) -> None:
    keys, scales = row.pages.keys, row.pages.key_scales
    assert keys.is_contiguous()
    assert row.pages.values.is_contiguous()
    assert keys.shape[3] == PAGE
    assert row.table.itemsize == 4
    entry.layer_bytes, entry.page_bytes = (keys.stride(axis) * keys.element_size() for axis in (0, 1))
    entry.n_slots = PAGE
    entry.keys, entry.values = keys.data_ptr(), row.pages.values.data_ptr()
    entry.pages = row.table.buffer_info()[0] + row.first_entry * row.table.itemsize
    entry.first_page, entry.n_pages = row.first_page, row.n_pages
    if scales is not None and row.pages.value_scales is not None:
        entry.layer_scales, entry.page_scales = scales.stride(0), scales.stride(1)
        entry.key_scales, entry.value_scales = scales.data_ptr(), row.pages.value_scales.data_ptr()


def _dense_heads(x: Tensor) -> Tensor:
    """`x` with the numbers of a token beside each other; tokens may be apart."""
    return x if x.stride(2) == 1 and x.stride(1) == x.shape[2] else x.contiguous()
