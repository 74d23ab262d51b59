"""An adapter added to the weights that it was trained beside, for good: W + scale * up down, tensor by tensor.

The sum is made in float32 on unquantised weights and rounded once, to the number format that is written.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from circius.base.errors import InvalidInputError
from circius.model.adapter import Adapter
from circius.weights.convert import check_apart, token_ids
from circius.weights.opened import Checkpoint
from circius.weights.save import Extra, Progress, WrittenCheckpoint, write_checkpoint


def write_merged(
    base: Checkpoint,
    adapter: Adapter,
    target: Path,
    *,
    to: str = "hf",
    dtype: torch.dtype | None = None,
    quantization: str | None = None,
    dequantize: bool = False,
    overwrite: bool = False,
    extra: Extra | None = None,
    metadata: Mapping[str, object] | None = None,
    on_progress: Progress | None = None,
) -> WrittenCheckpoint:
    """Writes the merged weights, one tensor in memory at a time; `target` appears whole or not at all.

    dtype: None writes each weight in the base's.
    dequantize: whether a quantised base may be merged into, as the numbers that its codes stand for. That is what an
        adapter trained beside those codes has seen; without it only unquantised weights are taken.
    The other arguments are `write_checkpoint`'s.

    Raises:
        InvalidInputError: the adapter does not fit the base, the base is quantised, or base and target lie inside one
            another.
        CirciusError: as `write_checkpoint`.
    """
    adapter.check_fits(base.config)
    check_base(base, dequantize=dequantize)
    target = Path(target).expanduser()
    check_apart(base.path, target)
    if to == "hf" and base.format == "hf":
        metadata = {**token_ids(base.path), **(metadata or {})}
    return write_checkpoint(
        MergedWeights(base, adapter),
        target,
        to=to,
        dtype=dtype,
        quantization=quantization,
        overwrite=overwrite,
        extra=extra,
        metadata=metadata,
        on_progress=on_progress,
    )


def check_base(base: Checkpoint, *, dequantize: bool) -> None:
    """Raises InvalidInputError for a quantised base, unless it is to be dequantised."""
    if base.is_quantised and not dequantize:
        raise InvalidInputError(
            f"{base.path} is quantised ({base.stored_as}): merge into the original weights, or ask for --dequantize to "
            "merge into the numbers that its codes stand for, written unquantised"
        )


class MergedWeights:
    """The weights of a checkpoint with an adapter added, in float32 where there is one; nothing is kept."""

    def __init__(self, base: Checkpoint, adapter: Adapter) -> None:
        self._base, self._adapter = base, adapter
        self.config = base.config
        self.dtype = base.dtype

    def dtype_of(self, name: str) -> torch.dtype:
        """The base's, in which the sum is to be written."""
        return self._base.tensors[name].dtype

    def read(self, name: str) -> Tensor:
        """The weight of that name, in the base's dtype if nothing is added to it."""
        part = self._adapter.parts.get(name.removesuffix(".weight"))
        if part is None:
            return self._base.read(name)
        change = self._adapter.config.scale * (part.up.float() @ part.down.float())
        return change.add_(self._base.read(name, dtype=torch.float32))
