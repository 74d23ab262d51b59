"""From any checkpoint to a packed one: weights stream through, one matrix or, with calibration, one block at a time."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from circius.quant.blocks import empty_block, round_block
from circius.quant.calibration import Calibration
from circius.quant.made import Made, OnPacked, WeightError, make_weight
from circius.quant.policy import Plan
from circius.weights.convert import check_apart, token_ids
from circius.weights.names import EMBEDDING
from circius.weights.opened import Checkpoint
from circius.weights.save import Extra, WrittenCheckpoint
from circius.weights.write_packed import write_packed

OnWeight = Callable[[int, int, str], None]
"""Called with the bytes of packed weights so far and in all, and the name of the one just finished."""


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """What was written, and how far each packed weight is from the source's."""

    written: WrittenCheckpoint
    errors: tuple[WeightError, ...]

    @property
    def worst(self) -> WeightError | None:
        """The largest error; None if no weight was packed."""
        return max(self.errors, key=lambda error: error.relative, default=None)

    @property
    def mean(self) -> float:
        """The plain mean of the relative errors of all packed weights."""
        return sum(error.relative for error in self.errors) / max(1, len(self.errors))


@torch.no_grad()
def write_quantized(
    checkpoint: Checkpoint,
    plan: Plan,
    target: Path,
    *,
    calibration: Sequence[Sequence[int]] | None = None,
    overwrite: bool = False,
    extra: Extra | None = None,
    metadata: dict[str, object] | None = None,
    on_progress: OnWeight | None = None,
) -> Quantized:
    """Writes the plan's weights as a packed checkpoint; `target` appears whole or not at all.

    calibration: token ids of excerpts; with them the errors of 4-bit weights in the layers are compensated, without
        every weight is rounded to nearest. In memory are then one block in float32, its largest matrix of products,
        (hidden_dim, hidden_dim), and the hidden states of all excerpts in float32.
    extra, metadata: as `write_checkpoint`'s.

    Raises:
        CirciusError: as `write_packed`; what the weights or the calibration make impossible.
        InvalidInputError: source and target lie inside one another.
    """
    target = Path(target).expanduser()
    check_apart(checkpoint.path, target)
    if checkpoint.format == "hf":
        metadata = {**token_ids(checkpoint.path), **(metadata or {})}
    errors: list[WeightError] = []
    sizes = {one.weight.name: one.weight.n_bytes for one in plan.weights if one.weight.bits is not None}

    def on_packed(error: WeightError) -> None:
        errors.append(error)
        if on_progress is not None:
            on_progress(sum(sizes[finished.name] for finished in errors), sum(sizes.values()), error.name)

    if calibration is None:
        weights: Iterator[Made] = (make_weight(checkpoint, decided, on_packed) for decided in plan.weights)
    else:
        weights = _compensated(checkpoint, plan, calibration, on_packed)
    written = write_packed(
        target,
        checkpoint.config,
        [decided.weight for decided in plan.weights],
        weights,
        overwrite=overwrite,
        extra=extra,
        metadata=metadata,
        quantization={"method": "nearest" if calibration is None else "gptq", "bits_per_weight": plan.bits_per_weight},
    )
    return Quantized(written=written, errors=tuple(errors))


def _compensated(
    checkpoint: Checkpoint, plan: Plan, calibration: Sequence[Sequence[int]], on_packed: OnPacked
) -> Iterator[Made]:
    """The plan's weights in its order, those of the layers rounded for what the calibration makes of them."""
    decided = {one.weight.name: one for one in plan.weights}
    embedding = make_weight(checkpoint, decided.pop(EMBEDDING), on_packed)
    states = Calibration(checkpoint.config, [_embedded(embedding, row) for row in calibration])
    yield embedding
    del embedding
    block = empty_block(checkpoint.config)
    for layer in range(checkpoint.config.n_layers):
        yield from round_block(checkpoint, layer, decided, block, states, on_packed)
        states.advance(block, layer)
    for one in decided.values():
        if not one.weight.name.startswith("model.layers."):
            yield make_weight(checkpoint, one, on_packed)


def _embedded(embedding: Made, row: Sequence[int]) -> Tensor:
    ids = torch.tensor(row)
    return embedding[ids].float() if isinstance(embedding, Tensor) else embedding.rows(ids)
