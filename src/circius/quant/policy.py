"""Which weight gets how many bits, all of it decided before any work starts."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Literal, NamedTuple

import torch

from circius.base.errors import InvalidInputError
from circius.kernels.packed import UNIT
from circius.quant.grid import GROUPS, Grid
from circius.quant.rounding import largest_magnitude, scale_dtype
from circius.weights.names import EMBEDDING, OUTPUT, expected_shapes
from circius.weights.opened import Checkpoint
from circius.weights.packed import PackedTensor
from circius.weights.stored import StoredTensor
from circius.weights.write_packed import PlannedWeight

Bits = Literal["keep", 4, 8, 16]
Origin = Literal["taken over", "rounded", "plain"]
Progress = Callable[[int, int], None]

GROUP_OF_8 = 32
"""Inputs that share a scale in 8 bits: half a bit more than one scale for all of them, and a fraction of the error."""
_FORMS = MappingProxyType({"Q4_0": (4, 32, False), "Q4_1": (4, 32, True), "Q4_K": (4, 32, True)})
_OTHER_FORMS = (8, 32, False)
_EXACT = frozenset({"Q4_0", "Q4_1", "Q5_0", "Q8_0"})
"""Block formats of GGUF whose every value a packed matrix has."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is asked for.

    bits: of the matrices in the layers; "keep" leaves everything in the form that the source has it in. None: "keep"
        for a quantised source, 4 for any other. The embedding and the output get 8 bits instead of 4: they are few,
        and every token depends on them directly.
    group: the inputs that share a scale in 4 bits; has_mins: whether groups have minima. None: what an exact form in
        the source has, else 32 and no minima.
    overrides: patterns of Hugging Face weight names, each with its bits; of several that match, the last one counts.
        16 bits are bfloat16 or, if the source has it so, float16.
    scales: float16, bfloat16, or None for float16 where the range allows.

    Raises:
        InvalidInputError: a value that is none of these.
    """

    bits: Bits | None = None
    group: int | None = None
    has_mins: bool | None = None
    overrides: tuple[tuple[str, Bits], ...] = ()
    scales: torch.dtype | None = None

    def __post_init__(self) -> None:
        if self.bits not in (None, "keep", 4, 8):
            raise InvalidInputError(f"bits must be 4, 8 or keep, got {self.bits!r}")
        if self.group not in (None, *GROUPS):
            raise InvalidInputError(f"a group must be of {', '.join(map(str, GROUPS))} inputs, got {self.group!r}")
        for pattern, bits in self.overrides:
            if bits not in ("keep", 4, 8, 16):
                raise InvalidInputError(f"bits must be 4, 8, 16 or keep, got {bits!r} for {pattern!r}")


class Decided(NamedTuple):
    """A weight of the target, and where its values come from."""

    weight: PlannedWeight
    origin: Origin

    @property
    def is_compensated(self) -> bool:
        """Whether calibration has a say: in 4-bit matrices of the layers that are rounded."""
        in_layer = self.weight.name not in (EMBEDDING, OUTPUT)
        return in_layer and self.origin == "rounded" and self.weight.bits == 4

    @property
    def grid(self) -> Grid:
        """How it is rounded, if it is."""
        weight = self.weight
        assert weight.bits is not None, weight.name
        return Grid(bits=weight.bits, group=weight.group, has_mins=weight.has_mins, dtype=weight.dtype)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Every weight of the target in the order of a forward pass, and a sentence for each choice."""

    weights: tuple[Decided, ...]
    notes: tuple[str, ...]

    @property
    def n_bytes(self) -> int:
        return sum(decided.weight.n_bytes for decided in self.weights)

    @property
    def origins(self) -> str:
        """How many weights go which way, in words."""
        counts = Counter(decided.origin for decided in self.weights)
        return ", ".join(f"{count} {origin}" for origin, count in counts.items())

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.n_bytes / sum(math.prod(decided.weight.shape) for decided in self.weights)


def make_plan(checkpoint: Checkpoint, recipe: Recipe, on_progress: Progress | None = None) -> Plan:
    """Decides every weight. All that is not taken over is read once, for its largest value.

    on_progress: called with the bytes looked at so far and in all.

    Raises:
        InvalidInputError: the recipe asks for what this model does not have, or scales that cannot hold its values.
        CheckpointError: a weight is not finite.
    """
    shapes = expected_shapes(checkpoint.config)
    _check_overrides(recipe, {name for name, shape in shapes.items() if len(shape) == 2})
    if recipe.bits == "keep" and not checkpoint.is_quantised:
        raise InvalidInputError(
            f"{checkpoint.path} is stored in {checkpoint.stored_as}, there are no quantised weights to keep: "
            "ask for 4 or 8 bits"
        )
    weights, notes, done = [], Counter[str](), 0
    for name, shape in shapes.items():
        stored = checkpoint.tensors[name]
        if on_progress is not None:
            on_progress(done, checkpoint.n_bytes)
        asked = _asked(name, recipe, checkpoint) if len(shape) == 2 else "keep"
        weights.append(_decide(name, stored, asked, recipe, checkpoint, notes))
        done += stored.n_bytes
    sentences = [f"{count} weight{'s' * (count > 1)}: {reason}" for reason, count in notes.items()]
    return Plan(weights=tuple(weights), notes=tuple(sentences))


def _asked(name: str, recipe: Recipe, checkpoint: Checkpoint) -> Bits:
    for pattern, bits in reversed(recipe.overrides):
        if fnmatchcase(name, pattern):
            return bits
    if recipe.bits is None and checkpoint.is_quantised:
        return "keep"
    if name in (EMBEDDING, OUTPUT) and recipe.bits != "keep":
        return 8
    return recipe.bits or 4


def _decide(
    name: str, stored: StoredTensor, asked: Bits, recipe: Recipe, checkpoint: Checkpoint, notes: Counter[str]
) -> Decided:
    own = _form_of(stored) if stored.is_quantised else None
    if own is not None and _satisfies(own, asked, recipe):
        if not isinstance(stored, PackedTensor) and stored.stored_as not in _EXACT:
            notes[f"{stored.stored_as} has no exact packed form, so it is rounded to {own.bits} bits"] += 1
        return Decided(own._replace(name=name, shape=stored.shape), "taken over")
    magnitude = largest_magnitude(name, checkpoint.read(name))
    if asked == "keep":
        return _plain(name, stored, stored.dtype)
    if asked == 16:
        return _plain(name, stored, stored.dtype if stored.dtype.itemsize == 2 else torch.bfloat16)
    n_inputs, wanted = stored.shape[1], GROUP_OF_8 if asked == 8 else recipe.group or GROUPS[0]
    group = next((size for size in reversed(GROUPS) if size <= wanted and n_inputs % size == 0), None)
    if group is None:
        notes[f"{n_inputs} inputs are no multiple of {UNIT}, so it stays as it is"] += 1
        return _plain(name, stored, torch.bfloat16 if stored.is_quantised else stored.dtype)
    if group != wanted:
        notes[f"{n_inputs} inputs are no multiple of {wanted}, so its groups are of {group}"] += 1
    dtype = _scale_dtype(name, magnitude, asked, recipe.scales)
    has_mins = asked == 4 and bool(recipe.has_mins)
    return Decided(PlannedWeight(name, stored.shape, asked, group, has_mins, dtype), "rounded")


def _plain(name: str, stored: StoredTensor, dtype: torch.dtype) -> Decided:
    return Decided(PlannedWeight(name, stored.shape, None, 0, False, dtype), "plain")


def _form_of(stored: StoredTensor) -> PlannedWeight:
    """The form in which `Checkpoint.read_packed` gives a quantised weight."""
    if isinstance(stored, PackedTensor):
        bits = 4 if stored.codes.dtype == torch.uint8 else 8
        group = stored.shape[1] // stored.scales.shape[1]
        return PlannedWeight(stored.name, stored.shape, bits, group, stored.mins is not None, stored.scales.dtype)
    bits, group, has_mins = _FORMS.get(stored.stored_as, _OTHER_FORMS)
    return PlannedWeight(stored.name, stored.shape, bits, group, has_mins, torch.float16)


def _satisfies(own: PlannedWeight, asked: Bits, recipe: Recipe) -> bool:
    """Whether a weight may keep its form: no more bits than asked for, and no other group, minima or scales."""
    if asked == "keep":
        return True
    assert own.bits is not None
    return (
        own.bits <= asked <= 8
        and recipe.group in (None, own.group)
        and (own.bits == 8 or recipe.has_mins in (None, own.has_mins))
        and recipe.scales in (None, own.dtype)
    )


def _scale_dtype(name: str, magnitude: float, bits: int, wanted: torch.dtype | None) -> torch.dtype:
    if wanted == torch.float16 and magnitude > torch.finfo(torch.float16).max:
        raise InvalidInputError(
            f"{name} holds a value of {magnitude:.4g}, for which scales in float16 may overflow: choose bfloat16"
        )
    return wanted or scale_dtype(magnitude, bits)


def _check_overrides(recipe: Recipe, matrices: set[str]) -> None:
    for pattern, bits in recipe.overrides:
        if not any(fnmatchcase(name, pattern) for name in matrices):
            raise InvalidInputError(
                f"{pattern!r}, which should get {bits} bits, is the name of no matrix in this model: they are called "
                f"{EMBEDDING}, model.layers.0.mlp.down_proj.weight and so on"
            )
