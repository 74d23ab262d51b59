"""The whole model on one flat token axis: embeddings, blocks, norm, logits."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from circius.base.config import ModelConfig
from circius.base.errors import CirciusError, InvalidInputError
from circius.kernels import native
from circius.kernels.linear import linear
from circius.kernels.packed import PackedMatrix
from circius.kernels.packed_linear import Activations
from circius.kernels.ring_attention import is_fast
from circius.model.adapter import AdaptedRows, Adapter
from circius.model.layers import Block, Linear, RMSNorm
from circius.model.packed_blocks import PackedBlocks
from circius.model.packed_layers import PackedEmbedding, PackedLinear, PackedWeight, multiply_packed
from circius.model.rope import rotation_at
from circius.model.step import Cache, FreshStep, Step


class Decoder(nn.Module):
    """Embeddings, blocks and the final norm; the prefix `model.` of Hugging Face's names."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens: nn.Embedding | PackedEmbedding = nn.Embedding(config.vocab_size, config.dim)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)


class Transformer(nn.Module):
    """Mistral 7B, or any model of its shape (grouped-query attention, rotary positions, SwiGLU, RMSNorm).

    Parameters carry the names and the row order of a Hugging Face checkpoint. With `config.tied_output` there is no
    `lm_head`: the embedding matrix makes the logits. Any of the matrices may be packed (`place`).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        if not config.tied_output:
            self.lm_head: Linear | PackedLinear = Linear(config.dim, config.vocab_size)
        self._packed_blocks: PackedBlocks | None = None
        self._cache_dtype: torch.dtype | None = None
        self._fixed_order = False
        self._adapter: Adapter | None = None

    @property
    def device(self) -> torch.device:
        return self.model.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the hidden states; float32 in a packed model."""
        return self.model.embed_tokens.weight.dtype

    @property
    def is_packed(self) -> bool:
        """Whether any matrix is packed."""
        return any(isinstance(module, PackedWeight) for module in self.modules())

    @property
    def cache_dtype(self) -> torch.dtype:
        """In which the engine's caches keep keys and values: the model's dtype, but float16 for a packed model, until
        something else is set (float32, float16, bfloat16, int8)."""
        if self._cache_dtype is not None:
            return self._cache_dtype
        return torch.float16 if self.is_packed else self.dtype

    @cache_dtype.setter
    def cache_dtype(self, dtype: torch.dtype) -> None:
        self._cache_dtype = dtype

    @property
    def adapter(self) -> Adapter | None:
        """What all rows have whose forward does not say otherwise."""
        return self._adapter

    @adapter.setter
    def adapter(self, adapter: Adapter | None) -> None:
        if adapter is not None:
            adapter.check_fits(self.config)
        self._adapter = None if adapter is None else adapter.to(self.device)

    def cache_bytes(self, n_tokens: int) -> int:
        """The bytes that one sequence of `n_tokens` keeps in `cache_dtype`, with the scales of int8 codes."""
        bytes_per_head = self.config.head_dim * self.cache_dtype.itemsize + (4 if self.cache_dtype == torch.int8 else 0)
        return self.config.cache_bytes(n_tokens, bytes_per_value=bytes_per_head) // self.config.head_dim

    def _blocks(self) -> list[Block]:
        return [block for block in self.model.layers if isinstance(block, Block)]

    def set_activations(self, activations: Activations) -> None:
        """Says how packed matrices take their inputs: "int8" (the beginning) or "float"."""
        for module in self.modules():
            if isinstance(module, PackedWeight):
                module.activations = activations

    def fix_order(self) -> None:
        """From now on no bit of a token's logits depends on what is computed beside it, whatever the weights are: every
        sum has one order. Needs the native kernels, and takes longer to read prompts with plain weights.

        Raises:
            CirciusError: the native kernels cannot be used here.
        """
        if self.device.type != "cpu" or not is_fast():
            raise CirciusError(
                f"sums in a fixed order need the native kernels on the CPU; this model is on {self.device}, "
                f"{native.describe()}"
            )
        for module in self.modules():
            if isinstance(module, Linear | PackedWeight):
                module.fixed_order = True
        self._fixed_order = True

    def place(self, weights: Mapping[str, Tensor | PackedMatrix]) -> None:
        """Makes these the model's weights, by Hugging Face name, all of them; nothing is copied.

        A packed matrix takes the place of the layer whose weight it is; all others must then be float32.

        Raises:
            InvalidInputError: a weight too few or too many.
        """
        own = {name for name, _ in self.named_parameters()}
        own |= {name for name, module in self.named_modules() if isinstance(module, PackedWeight)}
        if odd := sorted(own ^ weights.keys()):
            raise InvalidInputError(f"{len(weights)} weights for a model of {len(own)}: they differ in {odd[0]}")
        for name, weight in weights.items():
            layer = self.get_submodule(name.removesuffix(".weight"))
            if isinstance(weight, Tensor):
                layer.load_state_dict({"weight": weight}, assign=True)
            else:
                is_embedding = layer is self.model.embed_tokens
                packed = PackedEmbedding(weight) if is_embedding else PackedLinear(weight)
                self.set_submodule(name.removesuffix(".weight"), packed)
        self._gather_packed()

    def replace(self, name: str, layer: nn.Module) -> None:
        """Puts another layer in the place of the one with that name, such as `model.layers.0.self_attn.q_proj`."""
        self.set_submodule(name, layer)
        self._gather_packed()

    def _gather_packed(self) -> None:
        self._packed_blocks = PackedBlocks.of(self._blocks()) if self.is_packed else None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._gather_packed()  # of what has been moved
        if self._adapter is not None:
            self._adapter = self._adapter.to(self.device)
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._gather_packed()  # a copy of what was gathered would point at the weights of the original

    def forward(
        self,
        tokens: Tensor,
        lengths: Sequence[int],
        *,
        cache: Cache | None = None,
        rows: Sequence[int] | None = None,
        logits: Literal["all", "last", "none"] | Sequence[int] = "all",
        adapters: Sequence[Adapter | None] | None = None,
    ) -> Tensor:
        """The logits in float32: (N, V) for "all", (B, V) of each row's last token for "last", (0, V) for "none",
        (n, V) of the tokens at n places.

        tokens: (N,) int64, the rows' new tokens one row after the other, nothing between them.
        lengths: how many of them each row has, at least 1 each; their sum is N.
        cache: where the rows' past is and the new tokens go; gradients do not reach into it. Without one, each row is
            a sequence of its own from position 0: causal, inside the window, blind to its neighbours.
        rows: which rows of the cache these are, ascending; all of them by default.
        adapters: one for each row, on the model's device, or None for the weights as they are; the model's own for all
            by default.

        Raises:
            InvalidInputError: lengths that do not fit the tokens, or rows that do not fit the cache.
            CacheFullError: a row has no room for its tokens.
        """
        places = _places(logits, lengths)
        hidden = self._computed(tokens, lengths, cache, rows, adapters)
        if places is not None:
            hidden = hidden[torch.tensor(places, dtype=torch.int64, device=hidden.device)]
        return self._logits(hidden)

    def hidden(
        self,
        tokens: Tensor,
        lengths: Sequence[int],
        *,
        cache: Cache | None = None,
        adapters: Sequence[Adapter | None] | None = None,
    ) -> Tensor:
        """The hidden states (N, E) behind the final norm, of which the logits are made; arguments as for `forward`.

        Raises:
            InvalidInputError, CacheFullError: as `forward`.
        """
        normed: Tensor = self.model.norm(self._computed(tokens, lengths, cache, None, adapters))
        return normed

    def _computed(
        self,
        tokens: Tensor,
        lengths: Sequence[int],
        cache: Cache | None,
        rows: Sequence[int] | None,
        adapters: Sequence[Adapter | None] | None,
    ) -> Tensor:
        """The hidden states before the final norm."""
        if tokens.ndim != 1 or not lengths or min(lengths) < 1 or sum(lengths) != len(tokens):
            raise InvalidInputError(
                f"tokens must be one flat axis of sum(lengths) ids with at least one a row: got shape "
                f"{tuple(tokens.shape)} for lengths {list(lengths)}"
            )
        adapted = self._adapted(adapters, lengths)
        if cache is not None:
            step = cache.begin(lengths, rows)
            hidden = self._run_blocks(tokens, step, adapted)
            cache.commit(step)
            return hidden
        if rows is not None:
            raise InvalidInputError("rows name the rows of a cache, but no cache was given")
        return self._run_blocks(tokens, FreshStep(self.config, lengths, self.device), adapted)

    def _adapted(self, adapters: Sequence[Adapter | None] | None, lengths: Sequence[int]) -> AdaptedRows | None:
        """Which tokens have which adapter; None if none has any."""
        own = [self._adapter] * len(lengths) if adapters is None else adapters
        if len(own) != len(lengths):
            raise InvalidInputError(f"{len(own)} adapters for {len(lengths)} rows: give one or None for each")
        return AdaptedRows(own, lengths, self.device) if any(own) else None

    def _run_blocks(self, tokens: Tensor, step: Step, adapted: AdaptedRows | None = None) -> Tensor:
        hidden: Tensor = self.model.embed_tokens(tokens.to(self.device))
        rotation = rotation_at(step.positions, head_dim=self.config.head_dim, theta=self.config.rope_theta)
        if adapted is None and self._packed_blocks is not None and self._packed_blocks.takes(hidden):
            return self._packed_blocks(hidden, rotation, step)
        for index, block in enumerate(self.model.layers):
            adapt = None if adapted is None else partial(adapted.add, index)
            hidden = block(hidden, rotation, partial(step.attend, index), adapt)
        return hidden

    def _logits(self, hidden: Tensor) -> Tensor:
        weight = self.model.embed_tokens.weight if self.config.tied_output else self.lm_head.weight
        hidden = self.model.norm(hidden)
        if isinstance(weight, PackedWeight):
            return multiply_packed(hidden, weight)[0]
        return linear(hidden, weight, fixed_order=self._fixed_order).float()


def _places(logits: Literal["all", "last", "none"] | Sequence[int], lengths: Sequence[int]) -> list[int] | None:
    """On the axis of all tokens, those whose logits are wanted; None for all."""
    if logits == "all":
        return None
    if logits == "last":
        return [end - 1 for end in accumulate(lengths)]
    if logits == "none":
        return []
    if isinstance(logits, str) or not all(0 <= place < sum(lengths) for place in logits):
        raise InvalidInputError(
            f'logits must be "all", "last", "none" or places from 0 to {sum(lengths) - 1}, got {logits!r}'
        )
    return list(logits)
