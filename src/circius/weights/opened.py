"""A checkpoint, opened: its configuration and where each weight lies; values wait to be asked for."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Final, Literal

import torch
from torch import Tensor

from circius.base.config import ModelConfig, Window
from circius.base.errors import CheckpointError
from circius.weights.names import expected_shapes, interleaved_to_half, rotary_heads
from circius.weights.packed import PackedTensor
from circius.weights.stored import Packed, StoredTensor, check_float

Format = Literal["hf", "consolidated", "gguf"]


class Keep(Enum):
    """The type of KEEP, so that None can mean "no window"."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP
"""The window that the checkpoint says."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model on disk. Weights are asked for by Hugging Face name and come in Hugging Face row order.

    path: the folder or file that was opened.
    config: the model's shape, after what the caller replaced.
    notes: what was assumed or replaced, one sentence each.
    tensors: the weights as stored, by Hugging Face name, in the order of a forward pass.
    rows_interleaved: whether the rows of q and k are stored in interleaved order.
    """

    path: Path
    format: Format
    config: ModelConfig
    notes: tuple[str, ...]
    tensors: Mapping[str, StoredTensor] = field(repr=False)
    rows_interleaved: bool

    @property
    def n_bytes(self) -> int:
        """The bytes of all weights on disk."""
        return sum(tensor.n_bytes for tensor in self.tensors.values())

    @property
    def is_quantised(self) -> bool:
        """Whether any weight is stored in fewer bits than a float has."""
        return any(tensor.is_quantised for tensor in self.tensors.values())

    @property
    def is_packed(self) -> bool:
        """Whether any weight is stored in the order of our kernels, to be used in place."""
        return any(isinstance(tensor, PackedTensor) for tensor in self.tensors.values())

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which most of it is stored; float32 for quantised weights, where dequantising is exact."""
        if self.is_quantised:
            return torch.float32
        sizes: Counter[torch.dtype] = Counter()
        for tensor in self.tensors.values():
            sizes[tensor.dtype] += tensor.n_bytes
        return sizes.most_common(1)[0][0]

    @property
    def stored_as(self) -> str:
        """How people call the number format of most of it."""
        sizes: Counter[str] = Counter()
        for tensor in self.tensors.values():
            sizes[tensor.stored_as] += tensor.n_bytes
        return sizes.most_common(1)[0][0]

    def names(self) -> tuple[str, ...]:
        """The Hugging Face names of all weights, in the order of a forward pass."""
        return tuple(self.tensors)

    def read(self, name: str, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> Tensor:
        """One weight, by default in the dtype in which it is stored.

        What needs no change stays in place: it is a view of the mapped file, and costs no memory until it is used.
        Anything else (another dtype, a device, rows to reorder, quantised values) is a copy, for which the file's
        pages are mapped only as long as it takes.
        """
        stored = self.tensors[name]
        dtype = dtype or stored.dtype
        heads = rotary_heads(name, self.config) if self.rows_interleaved else None
        if heads is None:
            if dtype == stored.dtype and torch.device(device).type == "cpu":
                return stored.view()
            return stored.copy(dtype, device)
        return interleaved_to_half(stored.copy(dtype), heads).to(device)

    def read_packed(self, name: str) -> Packed | None:
        """One weight as a packed matrix; None for a weight that is stored in floats, or that packing cannot hold.

        That of a packed checkpoint stays in place in the mapped file. GGUF's blocks are put in another order.
        """
        heads = rotary_heads(name, self.config) if self.rows_interleaved else None
        return self.tensors[name].packed(heads)


def match_weights(
    tensors: Mapping[str, StoredTensor],
    config: ModelConfig,
    *,
    path: Path,
    source: str,
    own_name: Callable[[str], str] = str,
) -> dict[str, StoredTensor]:
    """The tensors that the model needs, by Hugging Face name, in the order of a forward pass.

    tensors: what the files hold, by the format's own names.
    source: what `config` was read from, for messages.
    own_name: the format's name of a Hugging Face name.

    Raises:
        CheckpointError: a weight is missing, has another shape than the configuration says, or is no float.
    """
    matched: dict[str, StoredTensor] = {}
    missing: list[tuple[str, tuple[int, ...]]] = []
    for name, shape in expected_shapes(config).items():
        tensor = tensors.get(own_name(name))
        if tensor is None:
            missing.append((own_name(name), shape))
            continue
        if tensor.shape != shape:
            raise CheckpointError(
                f"{tensor.file}: {tensor.name} has shape {tensor.shape}; by {source} it must have shape {shape}"
            )
        check_float(tensor)
        matched[name] = tensor
    if missing:
        name, shape = missing[0]
        more = f", and {len(missing) - 1} more weights" if len(missing) > 1 else ""
        raise CheckpointError(
            f"{path}: {name} of shape {shape} is missing{more}; {len(matched)} of "
            f"{len(matched) + len(missing)} expected weights were found"
        )
    return matched


def refuse_unexpected(
    tensors: Mapping[str, StoredTensor],
    config: ModelConfig,
    *,
    own_name: Callable[[str], str] = str,
) -> None:
    """Raises CheckpointError for the first of `tensors`, by the format's own names, that the model has no place for."""
    expected = {own_name(name) for name in expected_shapes(config)}
    for name, tensor in tensors.items():
        if name not in expected:
            raise CheckpointError(
                f"{tensor.file}: {tensor.name} of shape {tensor.shape} has no place in this model of "
                f"{config.n_layers} layers: the checkpoint is of another architecture or size"
            )


def with_overrides(
    config: ModelConfig, notes: list[str], *, window: Window | Keep, rope_theta: float | None
) -> ModelConfig:
    """`config` with what the caller replaced; each replacement is added to `notes`.

    Raises:
        ConfigError: a value that no model can have.
    """
    if window is not KEEP and window != config.window_size:
        notes.append(f"window_size is {window} as asked, instead of {config.window_size}")
        config = replace(config, window_size=window)
    if rope_theta is not None and rope_theta != config.rope_theta:
        notes.append(f"rope_theta is {rope_theta:g} as asked, instead of {config.rope_theta:g}")
        config = replace(config, rope_theta=rope_theta)
    return config
