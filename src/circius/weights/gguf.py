"""GGUF files, llama.cpp's format: plain floats in place, quantised blocks packed by the native library, or dequantised
by the `gguf` package's arithmetic."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from circius.base.config import Window
from circius.base.errors import CheckpointError
from circius.base.gguf_header import Header, TensorEntry, read_gguf_header
from circius.kernels import native
from circius.kernels.blocks import take_blocks
from circius.weights.gguf_config import read_gguf_config
from circius.weights.names import EMBEDDING, OUTPUT, interleaved_to_half, to_gguf
from circius.weights.opened import Checkpoint, Keep, match_weights, refuse_unexpected, with_overrides
from circius.weights.stored import Packed, RawTensor, StoredTensor, map_bytes

_FLOATS = MappingProxyType({0: torch.float32, 1: torch.float16, 30: torch.bfloat16})  # by ggml's number
_QUANTISED = MappingProxyType(
    {2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K"}
)
_ROW_VALUES = 4096
_VALUES_AT_ONCE = 2**20  # dequantised in float32 at one time by each thread: bounds the memory that it takes


@dataclass(frozen=True, kw_only=True)
class QuantisedTensor:
    """A matrix stored in ggml's blocks of a few bits a value; reading gives float32, where dequantising is exact."""

    file: Path
    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int
    n_bytes: int
    dtype: torch.dtype = torch.float32
    is_quantised: bool = True

    @property
    def stored_as(self) -> str:
        return _QUANTISED[self.kind]

    def packed(self, n_heads: int | None = None) -> Packed | None:
        """The matrix in the order of our kernels; a copy, for which the file's pages are mapped only meanwhile.

        None without the native library, which puts the blocks in that order.
        """
        if len(self.shape) != 2 or not native.available():
            return None
        n_outputs, n_inputs = self.shape
        rows = map_bytes(self.file, self.offset, self.n_bytes).view(n_outputs, -1)
        order = None if n_heads is None else interleaved_to_half(torch.arange(n_outputs), n_heads)
        taken = take_blocks(self.kind, rows, n_inputs, order)
        return None if taken is None else Packed(*taken)

    def view(self) -> Tensor:
        """The values in float32; blocks cannot be used in place."""
        return self.copy()

    def copy(self, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> Tensor:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
        from gguf.quants import dequantize

        kind = GGMLQuantizationType(self.kind)
        block, block_bytes = GGML_QUANT_SIZES[kind]
        n_blocks = self.n_bytes // block_bytes
        # Blocks follow each other without regard to rows. dequantize takes 16 rows at a time: longer rows are faster.
        per_row = math.gcd(n_blocks, _ROW_VALUES // block)
        stored = map_bytes(self.file, self.offset, self.n_bytes).view(-1, per_row * block_bytes)
        values = torch.empty(len(stored), per_row * block, dtype=dtype or self.dtype)

        def fill(source: Tensor, target: Tensor) -> None:
            target.copy_(torch.from_numpy(dequantize(source.numpy(), kind)))

        at_once = max(1, _VALUES_AT_ONCE // (per_row * block))
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(fill, torch.split(stored, at_once), torch.split(values, at_once)))
        return values.view(self.shape).to(device)


def open_gguf(file: Path, *, window: Window | Keep, rope_theta: float | None) -> Checkpoint:
    """The checkpoint in `file`. Without `output.weight` the model is tied, as the format says.

    Raises:
        CheckpointError: the file is truncated, damaged, or of a kind that circius does not implement.
        ConfigError: the window or rope_theta that was asked for is impossible.
    """
    header = read_gguf_header(file)
    tensors = _locate(file, header)
    if "rope_freqs.weight" in tensors:
        raise CheckpointError(
            f"{file}: rope_freqs.weight of shape {tensors['rope_freqs.weight'].shape} scales the rotation, as in "
            "Llama 3.1 and later, which circius does not implement"
        )
    embedding = tensors.get(to_gguf(EMBEDDING))
    if embedding is None:
        raise CheckpointError(f"{file}: {to_gguf(EMBEDDING)} is missing; found {len(tensors)} tensors")
    config, notes = read_gguf_config(
        file,
        header.metadata,
        vocab_size=embedding.shape[0],
        tied_output=to_gguf(OUTPUT) not in tensors,
        window=window,
        rope_theta=rope_theta,
    )
    matched = match_weights(tensors, config, path=file, source="the metadata", own_name=to_gguf)
    refuse_unexpected(tensors, config, own_name=to_gguf)
    return Checkpoint(
        path=file,
        format="gguf",
        config=with_overrides(config, notes, window=window, rope_theta=rope_theta),
        notes=tuple(notes),
        tensors=matched,
        rows_interleaved=True,
    )


def _locate(file: Path, header: Header) -> dict[str, StoredTensor]:
    """The tensors by name, once it is sure that each lies inside the file, one after the other as the format wants."""
    tensors: dict[str, StoredTensor] = {}
    end = 0
    for entry in header.tensors:
        if entry.name in tensors:
            raise CheckpointError(f"{file}: the tensor {entry.name} appears twice")
        if entry.offset != end:
            raise CheckpointError(
                f"{file}: {entry.name} starts at byte {entry.offset} of the values, expected {end}: damaged header"
            )
        tensor = _tensor(file, header.start, entry)
        if header.start + entry.offset + tensor.n_bytes > header.file_bytes:
            raise CheckpointError(
                f"{file}: truncated: {entry.name} of shape {entry.shape} ends at byte "
                f"{header.start + entry.offset + tensor.n_bytes}, the file has {header.file_bytes}"
            )
        tensors[entry.name] = tensor
        end = entry.offset + -(-tensor.n_bytes // header.alignment) * header.alignment
    return tensors


def _tensor(file: Path, start: int, entry: TensorEntry) -> StoredTensor:
    offset = start + entry.offset
    if entry.kind in _FLOATS:
        return RawTensor(file=file, name=entry.name, shape=entry.shape, dtype=_FLOATS[entry.kind], offset=offset)
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if entry.kind not in _QUANTISED:
        known = {kind.value: kind.name for kind in GGMLQuantizationType}
        raise CheckpointError(
            f"{file}: {entry.name} is stored as {known.get(entry.kind, f'type {entry.kind}')}; circius reads F32, F16, "
            f"BF16, {', '.join(sorted(_QUANTISED.values()))}"
        )
    block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(entry.kind)]
    if entry.shape[-1] % block:
        raise CheckpointError(
            f"{file}: {entry.name} of shape {entry.shape} cannot be {_QUANTISED[entry.kind]}: its rows are no multiple "
            f"of {block} values"
        )
    return QuantisedTensor(
        file=file,
        name=entry.name,
        shape=entry.shape,
        kind=entry.kind,
        offset=offset,
        n_bytes=math.prod(entry.shape) // block * block_bytes,
    )
