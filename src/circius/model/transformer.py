"""The whole model on one flat token axis: embeddings, blocks, norm, logits."""

from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor, nn

from circius.base.config import ModelConfig
from circius.base.errors import InvalidInputError
from circius.kernels.linear import linear
from circius.model.cache import RollingCache
from circius.model.layers import Block, Linear, RMSNorm
from circius.model.rope import rotation_at
from circius.model.step import FreshStep, Step


class Decoder(nn.Module):
    """Embeddings, blocks and the final norm; the prefix `model.` of Hugging Face's names."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.dim)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)


class Transformer(nn.Module):
    """Mistral 7B, or any model of its shape (grouped-query attention, rotary positions, SwiGLU, RMSNorm).

    Parameters carry the names and the row order of a Hugging Face checkpoint. With `config.tied_output` there is no
    `lm_head`: the embedding matrix makes the logits.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        if not config.tied_output:
            self.lm_head = Linear(config.dim, config.vocab_size)

    @property
    def device(self) -> torch.device:
        return self.model.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.embed_tokens.weight.dtype

    def forward(
        self,
        tokens: Tensor,
        lengths: Sequence[int],
        *,
        cache: RollingCache | None = None,
        rows: Sequence[int] | None = None,
        logits: Literal["all", "last", "none"] = "all",
    ) -> Tensor:
        """The logits in float32: (N, V) for "all", (B, V) of each row's last token for "last", (0, V) for "none".

        tokens: (N,) int64, the rows' new tokens one row after the other, nothing between them.
        lengths: how many of them each row has, at least 1 each; their sum is N.
        cache: where the rows' past is and the new tokens go; gradients do not reach into it. Without one, each row is
            a sequence of its own from position 0: causal, inside the window, blind to its neighbours.
        rows: which rows of the cache these are, ascending; all of them by default.

        Raises:
            InvalidInputError: lengths that do not fit the tokens, or rows that do not fit the cache.
            CacheFullError: a row has no room for its tokens.
        """
        if tokens.ndim != 1 or not lengths or min(lengths) < 1 or sum(lengths) != len(tokens):
            raise InvalidInputError(
                f"tokens must be one flat axis of sum(lengths) ids with at least one a row: got shape "
                f"{tuple(tokens.shape)} for lengths {list(lengths)}"
            )
        if logits not in ("all", "last", "none"):
            raise InvalidInputError(f'logits must be "all", "last" or "none", got {logits!r}')
        if cache is not None:
            step = cache.begin(lengths, rows)
            hidden = self._run_blocks(tokens, step)
            cache.commit(step)
        elif rows is None:
            hidden = self._run_blocks(tokens, FreshStep(self.config, lengths, self.device))
        else:
            raise InvalidInputError("rows name the rows of a cache, but no cache was given")
        if logits == "last":
            hidden = hidden[torch.tensor(list(accumulate(lengths)), device=hidden.device) - 1]
        elif logits == "none":
            hidden = hidden[:0]
        return self._logits(hidden)

    def _run_blocks(self, tokens: Tensor, step: Step) -> Tensor:
        hidden: Tensor = self.model.embed_tokens(tokens.to(self.device))
        rotation = rotation_at(step.positions, head_dim=self.config.head_dim, theta=self.config.rope_theta)
        for index, block in enumerate(self.model.layers):
            hidden = block(hidden, rotation, partial(step.attend, index))
        return hidden

    def _logits(self, hidden: Tensor) -> Tensor:
        weight = self.model.embed_tokens.weight if self.config.tied_output else self.lm_head.weight
        return linear(self.model.norm(hidden), weight).float()
