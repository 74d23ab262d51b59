"""One vector for a text: the model's last hidden states, averaged, or that of the last token."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from circius.model import Adapter, RollingCache, Transformer

Pooling = Literal["mean", "last"]


class Embedder:
    """Reads a text a chunk at a time, so that others can be served in between.

    A windowed model needs no more memory for a long text than for one of W tokens.
    """

    def __init__(
        self,
        model: Transformer,
        ids: Sequence[int],
        *,
        pooling: Pooling,
        chunk_size: int,
        adapter: Adapter | None = None,
    ) -> None:
        self._adapters = None if adapter is None else [adapter]
        self._model, self._ids, self._pooling, self._chunk_size = model, ids, pooling, chunk_size
        self._cache = RollingCache(model.config, [len(ids)], dtype=model.cache_dtype, device=model.device)
        self._n_read = 0
        self._sum = torch.zeros(model.config.dim, dtype=torch.float64)

    @property
    def is_done(self) -> bool:
        return self._n_read == len(self._ids)

    @torch.inference_mode()
    def read_chunk(self) -> None:
        """Reads the next tokens of the text."""
        chunk = self._ids[self._n_read : self._n_read + self._chunk_size]
        tokens = torch.tensor(chunk, device=self._model.device)
        hidden = self._model.hidden(tokens, [len(chunk)], cache=self._cache, adapters=self._adapters).double().cpu()
        self._n_read += len(chunk)
        if self._pooling == "mean":
            self._sum += hidden.sum(dim=0)
        else:
            self._sum = hidden[-1]

    def vector(self) -> Tensor:
        """The vector (E,) of length 1, in float32, when all has been read."""
        assert self.is_done
        pooled = self._sum / len(self._ids) if self._pooling == "mean" else self._sum
        return torch.nn.functional.normalize(pooled, dim=0).float()
