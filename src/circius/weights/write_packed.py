"""Writing a packed checkpoint: a folder in Hugging Face's layout, one weight in memory at a time."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from circius.base.config import ModelConfig
from circius.base.errors import InvalidInputError
from circius.kernels.packed import SCALE_DTYPES, UNIT, PackedMatrix
from circius.weights.cast import check_stored_dtype, short_name
from circius.weights.describe import hf_config, write_json
from circius.weights.names import expected_shapes
from circius.weights.packed import CODES, METHOD, MINS, SCALES, STEM, VERSION, packed_name, part_shapes
from circius.weights.plan import PlannedTensor
from circius.weights.save import Extra, Progress, WrittenCheckpoint
from circius.weights.target import new_folder
from circius.weights.write_safetensors import file_names, header_of, split, write_index, write_values


class PlannedWeight(NamedTuple):
    """One weight of the model, and how it will be stored.

    bits: 4 or 8; None for a weight that is stored as it is, in `dtype`.
    group: the inputs that share a scale; without meaning if `bits` is None.
    has_mins: whether there are minima beside the scales; only with 4 bits.
    dtype: of the scales and minima of a packed weight, or of the values of a plain one.
    """

    name: str
    shape: tuple[int, ...]
    bits: int | None
    group: int
    has_mins: bool
    dtype: torch.dtype

    @property
    def n_bytes(self) -> int:
        return sum(part.n_bytes for part in self.parts())

    def parts(self) -> tuple[PlannedTensor, ...]:
        """The tensors that the file holds for it."""
        if self.bits is None:
            return (_part(self, "", self.shape, self.dtype),)
        codes, scales = part_shapes(self.shape, bits=self.bits, group=self.group)
        return (
            _part(self, CODES, codes, torch.uint8 if self.bits == 4 else torch.int8),
            _part(self, SCALES, scales, self.dtype),
            *((_part(self, MINS, scales, self.dtype),) if self.has_mins else ()),
        )


def write_packed(
    target: Path,
    config: ModelConfig,
    plan: Sequence[PlannedWeight],
    weights: Iterable[Tensor | PackedMatrix],
    *,
    overwrite: bool = False,
    extra: Extra | None = None,
    metadata: Mapping[str, object] | None = None,
    quantization: Mapping[str, object],
    on_progress: Progress | None = None,
) -> WrittenCheckpoint:
    """Writes a packed checkpoint; `target` appears whole or not at all.

    plan: every weight of the model, in the order in which `weights` gives them.
    weights: asked for one at a time, each dropped before the next; exactly as the plan says.
    quantization: what people may want to know of how the codes came about; goes into config.json.
    overwrite, extra, metadata, on_progress: as `write_checkpoint`'s for the layout "hf".

    Raises:
        InvalidInputError: a plan that is not one of this model, or that no packed matrix can follow.
        ConfigError: a model that config.json cannot describe.
        StorageError: the target exists, or cannot be written.
    """
    target = Path(target).expanduser()
    _check_plan(config, plan)
    described = hf_config(config, _plain_dtype(plan), _more(metadata, quantization))
    n_bytes = sum(planned.n_bytes for planned in plan)
    shards = split(plan)
    given = _reported(iter(weights), plan, on_progress)
    with new_folder(target, n_bytes=n_bytes, overwrite=overwrite) as folder:
        write_json(folder / "config.json", described)
        files = file_names(len(shards), STEM)
        for file, shard in zip(files, shards, strict=True):
            _write_shard(folder / file, shard, given)
        left_over = next(given, None)  # runs to the last report of progress
        assert left_over is None, "there are more weights than planned"
        parts = [[part for planned in shard for part in planned.parts()] for shard in shards]
        write_index(folder, files, parts, STEM)
        if extra is not None:
            extra(folder)
    return WrittenCheckpoint(
        path=target, layout="hf", stored_as=_stored_as(plan), n_tensors=len(plan), n_bytes=n_bytes, notes=()
    )


def _write_shard(path: Path, plan: Sequence[PlannedWeight], weights: Iterator[Tensor | PackedMatrix]) -> None:
    """Writes one file. Each part goes to its own place: weights come in the plan's order, parts lie in another."""
    order = _in_file([part for planned in plan for part in planned.parts()])
    header = header_of(order)
    places, end = {}, len(header)
    for part in order:
        places[part.name] = end
        end += part.n_bytes
    with path.open("wb") as file:
        file.write(header)
        for planned in plan:
            for part, tensor in zip(planned.parts(), _tensors_of(next(weights), planned), strict=True):
                file.seek(places[part.name])
                write_values(file, tensor, part)


def _in_file(parts: Sequence[PlannedTensor]) -> list[PlannedTensor]:
    """The order of a file's tensors, between which the format allows no gaps.

    Codes are multiples of 64 bytes, so all of them stay aligned if nothing else stands before; scales are multiples of
    32; plain weights come last, wider numbers first.
    """

    def rank(part: PlannedTensor) -> tuple[int, int]:
        if part.name.endswith(CODES):
            return 0, 0
        return (1, 0) if part.name.endswith((SCALES, MINS)) else (2, -part.dtype.itemsize)

    return sorted(parts, key=rank)


def _tensors_of(weight: Tensor | PackedMatrix, planned: PlannedWeight) -> tuple[Tensor, ...]:
    if isinstance(weight, Tensor):
        return (weight,)
    assert (weight.n_outputs, weight.n_inputs) == planned.shape, planned.name
    return tuple(part for part in (weight.codes, weight.scales, weight.mins) if part is not None)


def _reported(
    weights: Iterator[Tensor | PackedMatrix], plan: Sequence[PlannedWeight], on_progress: Progress | None
) -> Iterator[Tensor | PackedMatrix]:
    n_done, n_total = 0, sum(planned.n_bytes for planned in plan)
    for planned in plan:
        if on_progress is not None:
            on_progress(n_done, n_total)
        yield next(weights)
        n_done += planned.n_bytes
    if on_progress is not None:
        on_progress(n_done, n_total)
    yield from weights


def _check_plan(config: ModelConfig, plan: Sequence[PlannedWeight]) -> None:
    shapes = expected_shapes(config)
    planned_shapes = {planned.name: tuple(planned.shape) for planned in plan}
    if planned_shapes != shapes or len(plan) != len(shapes):
        odd = sorted(
            name for name in shapes.keys() | planned_shapes.keys() if shapes.get(name) != planned_shapes.get(name)
        )
        raise InvalidInputError(
            f"the plan has {len(plan)} weights, the model {len(shapes)}, each with its own shape; they differ in "
            f"{', '.join(odd[:3]) or 'a name that comes twice'}"
        )
    for planned in plan:
        if planned.bits is None:
            check_stored_dtype(planned.dtype)
        elif not _can_be_packed(planned):
            raise InvalidInputError(
                f"{planned.name} of shape {planned.shape} cannot be packed in {planned.bits} bits in groups of "
                f"{planned.group} with scales in {short_name(planned.dtype)} and has_mins={planned.has_mins}: bits are "
                f"4 or 8, minima only with 4, groups multiples of {UNIT} that divide the inputs, scales in "
                f"{' or '.join(map(short_name, SCALE_DTYPES))}"
            )


def _can_be_packed(planned: PlannedWeight) -> bool:
    return (
        len(planned.shape) == 2
        and planned.bits in (4, 8)
        and not (planned.has_mins and planned.bits != 4)
        and planned.group > 0
        and planned.group % UNIT == 0
        and planned.shape[1] % planned.group == 0
        and planned.dtype in SCALE_DTYPES
    )


def _plain_dtype(plan: Sequence[PlannedWeight]) -> torch.dtype:
    return next((planned.dtype for planned in plan if planned.bits is None), torch.float32)


def _more(metadata: Mapping[str, object] | None, quantization: Mapping[str, object]) -> dict[str, object]:
    own = {"quant_method": METHOD, "version": VERSION}
    if clash := sorted(own.keys() & quantization.keys()):
        raise InvalidInputError(f"quantization_config's {', '.join(clash)} are the format's own and cannot be given")
    return {**(metadata or {}), "quantization_config": {**own, **quantization}}


def _stored_as(plan: Sequence[PlannedWeight]) -> str:
    sizes: Counter[str] = Counter()
    for planned in plan:
        name = short_name(planned.dtype) if planned.bits is None else packed_name(planned.bits, planned.group)
        sizes[name] += planned.n_bytes
    return sizes.most_common(1)[0][0]


def _part(planned: PlannedWeight, end: str, shape: tuple[int, ...], dtype: torch.dtype) -> PlannedTensor:
    return PlannedTensor(hf_name=planned.name, name=planned.name + end, shape=shape, dtype=dtype)
