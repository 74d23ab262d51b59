"""The layers of a packed model, each in one call of the native library; with the numbers of `Block.forward` there."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from circius.kernels import ring_attention
from circius.kernels.packed_layer import MOST_TOKENS, PackedLayer
from circius.model.layers import Block, RMSNorm
from circius.model.packed_layers import PackedLinear, PackedWeight
from circius.model.rope import Rotation
from circius.model.step import Step


class PackedBlocks:
    """What the library must know of the layers, gathered once.

    It is looked up for every token, so it keeps the modules whose weights it has seen, and compares those.
    """

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._norms = [_norms(block) for block in blocks]
        self._weights = [_weights(block) for block in blocks]
        self._seen_norms = [norm.weight for norms in self._norms for norm in norms]
        self._seen_matrices = [weight.matrix for weights in self._weights for weight in weights]
        self._layers = [
            PackedLayer(
                (first.weight.detach(), second.weight.detach()), first.eps, [weight.matrix for weight in weights]
            )
            for (first, second), weights in zip(self._norms, self._weights, strict=True)
        ]

    @classmethod
    def of(cls, blocks: Sequence[Block]) -> Self | None:
        """None if not every matrix of the blocks is packed, or one lies where the library cannot read it."""
        return cls(blocks) if all(_is_readable(block) for block in blocks) else None

    def takes(self, hidden: Tensor) -> bool:
        """Whether the library can do this forward: on the CPU, with 8-bit activations, and nobody wants gradients.

        False too if the modules have other weights than those that were seen.
        """
        norms = [norm.weight for pair in self._norms for norm in pair]
        weights = [weight for of_block in self._weights for weight in of_block]
        return (
            len(hidden) <= MOST_TOKENS
            and hidden.dtype == torch.float32
            and not (torch.is_grad_enabled() and any(part.requires_grad for part in (hidden, *norms)))
            and ring_attention.is_fast()
            and all(weight.activations == "int8" for weight in weights)
            and all(weight.matrix is seen for weight, seen in zip(weights, self._seen_matrices, strict=True))
            and all(norm is seen for norm, seen in zip(norms, self._seen_norms, strict=True))
        )

    def __call__(self, hidden: Tensor, rotation: Rotation, step: Step) -> Tensor:
        """What the layers make of `hidden` (N, E), in the same memory."""
        for index, layer in enumerate(self._layers):
            attention, place = step.ring_attention(index, hidden.dtype)
            layer(hidden, rotation.cos, rotation.sin, attention, place)
        return hidden


def _is_readable(block: Block) -> bool:
    norms = [norm.weight for norm in _norms(block)]
    parts = (*norms, *(tensor for weight in _weights(block) for tensor in weight.buffers()))
    return (
        all(isinstance(layer, PackedLinear) for layer in _linears(block))
        and all(norm.dtype == torch.float32 for norm in norms)
        and all(part.device.type == "cpu" and part.is_contiguous() for part in parts)
    )


def _norms(block: Block) -> tuple[RMSNorm, RMSNorm]:
    return block.input_layernorm, block.post_attention_layernorm


def _linears(block: Block) -> tuple[nn.Module, ...]:
    """In the order that the library wants."""
    attention, mlp = block.self_attn, block.mlp
    return (
        *(attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj),
        *(mlp.gate_proj, mlp.up_proj, mlp.down_proj),
    )


def _weights(block: Block) -> list[PackedWeight]:
    return [layer.weight for layer in _linears(block) if isinstance(layer, PackedLinear)]
