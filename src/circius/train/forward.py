"""From a batch to its loss: the model's hidden states, the matrix that makes their logits, memory traded for time."""

import torch
from torch import Tensor

from circius.kernels.packed import TILE, PackedMatrix
from circius.kernels.packed_linear import unpack
from circius.model import Transformer
from circius.model.layers import Block
from circius.model.packed_layers import PackedWeight
from circius.train.batch import Batch
from circius.train.loss import Loss, summed_loss

_TILES_AT_ONCE = 64
"""Of a packed matrix: bounds the memory that unpacking takes beside the values."""


def batch_loss(model: Transformer, batch: Batch, *, z_loss: float = 0.0) -> Loss:
    """The summed loss of a batch's learnt tokens.

    Raises:
        InvalidInputError: a batch that does not fit the model, as `Transformer.hidden` and `summed_loss`.
    """
    return summed_loss(model.hidden(batch.tokens, batch.lengths), output_matrix(model), batch.targets, z_loss=z_loss)


def output_matrix(model: Transformer) -> Tensor:
    """The (V, E) that makes logits: the head, or the embedding of a tied model.

    A packed one is unpacked, frozen, for as long as the caller keeps it.
    """
    weight = model.model.embed_tokens.weight if model.config.tied_output else model.lm_head.weight
    return _unpacked(weight.matrix) if isinstance(weight, PackedWeight) else weight


def _unpacked(matrix: PackedMatrix) -> Tensor:
    """The values in float32 where the matrix is, worked out some tiles at a time."""
    values = torch.empty(matrix.n_outputs, matrix.n_inputs, device=matrix.codes.device)
    for index, part in enumerate(torch.split(values, _TILES_AT_ONCE * TILE)):
        part.copy_(unpack(matrix, slice(index * _TILES_AT_ONCE, (index + 1) * _TILES_AT_ONCE)))
    return values


def recompute_blocks(model: Transformer, on: bool = True) -> None:
    """From now on training keeps only the hidden states between the blocks, and computes what is in them again on the
    way back: a third more work, the same numbers to the last bit."""
    for block in model.model.layers:
        assert isinstance(block, Block)
        block.recomputes = on
