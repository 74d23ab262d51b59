"""Checkpoints of random weights, of any size and in any layout, for tests and for people without weights."""

import hashlib
import itertools
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from circius.base.config import ModelConfig
from circius.base.errors import InvalidInputError
from circius.weights.names import expected_shapes
from circius.weights.save import Extra, Progress, WrittenCheckpoint, write_checkpoint

STANDARD_DEVIATION = 0.02
_BLOCK = 1 << 20  # values drawn at a time: 4 MB in float32


def init_checkpoint(
    config: ModelConfig,
    target: Path,
    *,
    to: str = "hf",
    seed: int = 0,
    dtype: torch.dtype = torch.bfloat16,
    quantization: str | None = None,
    overwrite: bool = False,
    extra: Extra | None = None,
    metadata: Mapping[str, object] | None = None,
    on_progress: Progress | None = None,
) -> WrittenCheckpoint:
    """Writes random weights: normal with a standard deviation of 0.02, norms of ones.

    The values of a weight depend on the seed and on its Hugging Face name alone, so that every layout holds the same
    model, and a model with fewer layers is the beginning of one with more. A full 7B takes less than 2 GB of memory.
    The other arguments are `write_checkpoint`'s.

    Raises:
        InvalidInputError: a seed that is negative or no whole number; CirciusError: as `write_checkpoint`.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InvalidInputError(f"seed must be a whole number of at least 0, got {seed!r}")
    return write_checkpoint(
        _RandomSource(config, seed, torch.float32 if quantization else dtype),
        target,
        to=to,
        dtype=None if quantization else dtype,
        quantization=quantization,
        overwrite=overwrite,
        extra=extra,
        metadata=metadata,
        on_progress=on_progress,
    )


def random_weight(name: str, shape: tuple[int, ...], *, seed: int, dtype: torch.dtype) -> Tensor:
    """The weight that `init_checkpoint` gives to this Hugging Face name; ones for a norm, which has one axis.

    >>> random_weight("model.norm.weight", (3,), seed=0, dtype=torch.float32).tolist()
    [1.0, 1.0, 1.0]
    """
    if len(shape) == 1:
        return torch.ones(shape, dtype=dtype)
    weight = torch.empty(shape, dtype=dtype)

    def fill(index: int, block: Tensor) -> None:
        # A stream of its own for each block, so that blocks can be drawn side by side. A hash and not hash():
        # Python's own differs from run to run.
        entropy = int.from_bytes(hashlib.sha256(f"{seed}:{name}:{index}".encode()).digest(), "little")
        generator = np.random.Generator(np.random.SFC64(entropy))
        values = generator.standard_normal(len(block), dtype=np.float32)
        block.copy_(torch.from_numpy(values).mul_(STANDARD_DEVIATION))

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # numpy lets the others work while it draws
        list(pool.map(fill, itertools.count(), torch.split(weight.view(-1), _BLOCK)))
    return weight


class _RandomSource:
    def __init__(self, config: ModelConfig, seed: int, dtype: torch.dtype) -> None:
        self.config = config
        self.dtype = dtype
        self._seed = seed
        self._shapes = expected_shapes(config)

    def dtype_of(self, name: str) -> torch.dtype:
        return self.dtype

    def read(self, name: str) -> Tensor:
        return random_weight(name, self._shapes[name], seed=self._seed, dtype=self.dtype)
