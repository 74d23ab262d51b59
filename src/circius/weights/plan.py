"""What a checkpoint file will hold, decided before its first byte: names, shapes, dtypes and row order."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from circius.base.config import ModelConfig
from circius.base.errors import CheckpointError, InvalidInputError
from circius.weights.cast import cast, check_stored_dtype, fits_exactly
from circius.weights.names import expected_shapes, half_to_interleaved, rotary_heads, to_consolidated, to_gguf

Layout = Literal["hf", "consolidated", "consolidated-pth", "gguf"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

_NAMES: Mapping[Layout, Callable[[str], str]] = MappingProxyType(
    {"hf": str, "consolidated": to_consolidated, "consolidated-pth": to_consolidated, "gguf": to_gguf}
)


class WeightSource(Protocol):
    """Where weights come from: an open checkpoint, a model in memory, a generator of random numbers."""

    @property
    def config(self) -> ModelConfig: ...

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which most of the weights are."""
        ...

    def dtype_of(self, name: str) -> torch.dtype:
        """The dtype that reading this weight gives."""
        ...

    def read(self, name: str) -> Tensor:
        """The weight of this Hugging Face name, on the CPU, in Hugging Face's row order."""
        ...


@dataclass(frozen=True, kw_only=True)
class PlannedTensor:
    """One tensor of the target file. `n_heads` is the number of heads whose rows change to interleaved order."""

    hf_name: str
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    n_heads: int | None = None

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def check_layout(to: str) -> Layout:
    """The layout of this name.

    Raises:
        InvalidInputError: there is none.
    """
    for layout in LAYOUTS:
        if to == layout:
            return layout
    raise InvalidInputError(f"unknown checkpoint format {to!r}: choose {', '.join(LAYOUTS)}")


def plan_tensors(source: WeightSource, to: Layout, dtype: torch.dtype | None) -> list[PlannedTensor]:
    """The tensors of the target in the order of a forward pass.

    dtype: what every tensor is stored in; None changes no value. Then a weight that is stored apart from the rest
    (GGUF keeps norms in float32) joins the others where that loses nothing, so that a round trip gives the same file.

    Raises:
        InvalidInputError: the dtype is not one that weights are stored in.
    """
    common = check_stored_dtype(source.dtype if dtype is None else dtype)
    plan = []
    for hf_name, shape in expected_shapes(source.config).items():
        is_norm = len(shape) == 1
        if is_norm and to == "gguf":
            stored = torch.float32
        else:
            stored = common if dtype is not None else _lossless(source, hf_name, common, is_norm)
        n_heads = None if to == "hf" else rotary_heads(hf_name, source.config)
        plan.append(
            PlannedTensor(hf_name=hf_name, name=_NAMES[to](hf_name), shape=shape, dtype=stored, n_heads=n_heads)
        )
    return plan


def common_dtype(plan: Sequence[PlannedTensor]) -> torch.dtype:
    """The dtype in which most bytes are planned."""
    sizes: Counter[torch.dtype] = Counter()
    for planned in plan:
        sizes[planned.dtype] += planned.n_bytes
    return sizes.most_common(1)[0][0]


def read_planned(
    source: WeightSource, plan: Sequence[PlannedTensor], on_progress: Callable[[int, int], None] | None
) -> Iterator[Tensor]:
    """Yields the planned tensors one at a time, in the order given, ready to be stored.

    on_progress: called with the bytes handed out so far and their total.

    Raises:
        CheckpointError: a shape is not the one expected, or a value is too large for the dtype.
    """
    n_done, n_total = 0, sum(planned.n_bytes for planned in plan)
    for planned in plan:
        if on_progress is not None:
            on_progress(n_done, n_total)
        yield _prepare(source.read(planned.hf_name), planned)
        n_done += planned.n_bytes
    if on_progress is not None:
        on_progress(n_done, n_total)


def _prepare(tensor: Tensor, planned: PlannedTensor) -> Tensor:
    if tuple(tensor.shape) != planned.shape:
        raise CheckpointError(f"{planned.hf_name} has shape {tuple(tensor.shape)}, {planned.shape} was expected")
    tensor = cast(planned.hf_name, tensor, planned.dtype)
    return tensor if planned.n_heads is None else half_to_interleaved(tensor, planned.n_heads)


def _lossless(source: WeightSource, name: str, common: torch.dtype, is_norm: bool) -> torch.dtype:
    """The common dtype if it holds every value of the weight, else the weight's own.

    Only norms are read to find out; float32 is known to hold the values of the other two.
    """
    own = source.dtype_of(name)
    if own == common or common == torch.float32 or (is_norm and fits_exactly(source.read(name), common)):
        return common
    return check_stored_dtype(own)
