"""The model: window, rotation, layers, rolling cache, transformer; `reference.py` stands alone beside them.

The letters of shapes, here and everywhere: B rows (sequences), T query tokens, S key slots, N tokens of all rows on
one flat axis, L layers, H query heads, K key-value heads, D head_dim, E dim, F hidden_dim, V vocabulary, W window.
"""

from circius.model.adapter import Adapter
from circius.model.cache import RollingCache
from circius.model.paged import PagedCache
from circius.model.paged_pieces import PagedRow
from circius.model.transformer import Transformer

__all__ = ["Adapter", "PagedCache", "PagedRow", "RollingCache", "Transformer"]
