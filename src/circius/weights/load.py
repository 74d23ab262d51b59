"""Weights from a checkpoint into a model: each read once, checked, and put in its place, mapped where it can be."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from circius.base.errors import CheckpointError, InvalidInputError
from circius.kernels import native
from circius.kernels.packed import PackedMatrix
from circius.kernels.packed_linear import Activations
from circius.model import Transformer
from circius.weights.cast import short_name
from circius.weights.checkpoint import open_checkpoint
from circius.weights.map_ahead import map_ahead
from circius.weights.memory import available_bytes
from circius.weights.opened import Checkpoint
from circius.weights.stored import FLOAT_DTYPES, Packed, StoredTensor

Progress = Callable[[int, int], None]


def load_model(
    source: Path | str | Checkpoint,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    activations: Activations = "int8",
    check_finite: bool = True,
    on_progress: Progress | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Transformer:
    """The model of a checkpoint, in evaluation mode and without gradients.

    The model is built without memory, and each weight takes its place in turn. A weight that is stored as it is
    needed stays in the file's mapping, so a whole checkpoint is never in memory twice.

    dtype: None uses quantised weights packed where that is possible (`can_be_packed`), and else takes `choose_dtype`'s
        choice; any other unpacks them.
    activations: how packed weights take their inputs, rounded to 8 bits or as they are; nothing to a plain model.
    check_finite: whether to look at every value for NaN and infinity; without it, mapped weights are not even read.
        The codes and scales of a packed checkpoint are never looked at: reading all of them would take longer than a
        warm start, and whoever wrote them had checked the values.
    on_progress: called with the bytes read so far and in all.
    on_note: called with one sentence for each thing that was chosen here.

    Raises:
        CheckpointError: the checkpoint is damaged, or a weight is not finite.
        InvalidInputError: a dtype that no model can be in.
    """
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source)
    note = on_note or (lambda _: None)
    packs = dtype is None and can_be_packed(checkpoint, device)
    if packs:
        dtype = torch.float32
        note(_how_packed(checkpoint, activations))
    else:
        dtype = _plain_dtype(checkpoint, dtype, device, note)
    weights: dict[str, Tensor | PackedMatrix] = {}
    rounded: list[tuple[str, Packed]] = []
    done, total = 0, checkpoint.n_bytes
    for name in checkpoint.names():
        stored = checkpoint.tensors[name]
        packed = checkpoint.read_packed(name) if packs else None
        if packed is None:
            weights[name] = plain = checkpoint.read(name, dtype=dtype, device=device)
            if check_finite:
                _check_finite(plain, stored)
        else:
            weights[name] = packed.matrix
            rounded += [(stored.stored_as, packed)] if packed.squared_error else []
        done += stored.n_bytes
        if on_progress:
            on_progress(done, total)
    if rounded:
        note(_what_was_rounded(rounded))
    with torch.device("meta"), Uninitialised():
        model = Transformer(checkpoint.config).requires_grad_(False)
    model.place(weights)
    model.set_activations(activations)
    if packs and checkpoint.is_packed and checkpoint.n_bytes < available_bytes(device):
        map_ahead(part for weight in weights.values() if isinstance(weight, PackedMatrix) for part in weight.parts)
    return model.eval()


def can_be_packed(checkpoint: Checkpoint, device: torch.device | str = "cpu") -> bool:
    """Whether quantised weights are best used as they are: on a CPU, by our kernels.

    A packed checkpoint is then in place, with or without the native library. A GGUF file needs it: on torch alone,
    float32 numbers made once are faster than codes unpacked anew for every token.
    """
    if torch.device(device).type != "cpu" or not checkpoint.is_quantised:
        return False
    return checkpoint.is_packed or native.available()


class Uninitialised(TorchFunctionMode):
    """Makes modules without their random first values, which have no memory to go to here.

    On the meta device they would cost nothing but time; some two seconds of it, since the normal distribution is the
    first thing there that pulls in torch's compiler.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return named["tensor"] if "tensor" in named else args[0]
        if func is Tensor.normal_:
            return args[0]
        return func(*args, **named)


def choose_dtype(checkpoint: Checkpoint, device: torch.device | str = "cpu") -> tuple[torch.dtype, str | None]:
    """The dtype to run a checkpoint in, and a sentence on why if there was a choice.

    It is the checkpoint's own; for quantised weights float32 if the model then fills at most half of the memory that
    is available, else bfloat16.
    """
    if not checkpoint.is_quantised:
        return checkpoint.dtype, None
    needed, available = 4 * checkpoint.config.n_parameters, available_bytes(device)
    sizes = f"{needed / 2**30:.1f} GiB in float32, {available / 2**30:.1f} GiB of memory are available"
    if 2 * needed <= available:
        return torch.float32, f"quantised weights are used as float32, where they are exact ({sizes})"
    return torch.bfloat16, f"quantised weights are rounded to bfloat16 to save memory ({sizes})"


def _plain_dtype(
    checkpoint: Checkpoint, dtype: torch.dtype | None, device: torch.device | str, note: Callable[[str], None]
) -> torch.dtype:
    """The dtype for a model of plain weights: the one asked for, or `choose_dtype`'s. Says what that means."""
    if dtype is None:
        dtype, reason = choose_dtype(checkpoint, device)
        if reason:
            note(reason)
    elif dtype not in FLOAT_DTYPES:
        allowed = ", ".join(map(str, FLOAT_DTYPES))
        raise InvalidInputError(f"dtype must be one of {allowed}, got {dtype}")
    elif checkpoint.is_packed:
        note(f"the weights ({checkpoint.stored_as}) are unpacked to {short_name(dtype)}, as asked")
    _note_casts(checkpoint, dtype, note)
    return dtype


def _how_packed(checkpoint: Checkpoint, activations: Activations) -> str:
    kinds = ", ".join(sorted({tensor.stored_as for tensor in checkpoint.tensors.values() if tensor.is_quantised}))
    is_rounded = activations == "int8" and native.available()
    inputs = "rounded to 8 bits" if is_rounded else "in float32"
    return f"quantised weights ({kinds}) are used as they are, activations {inputs}; {native.describe()}"


def _what_was_rounded(rounded: Sequence[tuple[str, Packed]]) -> str:
    """One sentence for all matrices that a packed one cannot hold exactly."""
    errors = []
    for kind in sorted({kind for kind, _ in rounded}):
        own = [packed for name, packed in rounded if name == kind]
        share = sum(packed.squared_error for packed in own) / sum(packed.squared_norm for packed in own)
        errors.append(f"{math.sqrt(share):.2%} in {kind}")
    return (
        f"{len(rounded)} matrices do not fit the kernels' layout exactly and were rounded once more: relative error "
        f"(rms) {', '.join(errors)}; dtype float32 keeps every value"
    )


def _note_casts(checkpoint: Checkpoint, dtype: torch.dtype, note: Callable[[str], None]) -> None:
    """Says which plain weights lose digits; quantised ones are told of elsewhere."""
    if checkpoint.is_quantised:
        return
    rounded = [tensor for tensor in checkpoint.tensors.values() if torch.promote_types(tensor.dtype, dtype) != dtype]
    if rounded:
        found = ", ".join(sorted({short_name(tensor.dtype) for tensor in rounded}))
        note(
            f"{len(rounded)} of {len(checkpoint.tensors)} weights are stored as {found} and rounded to "
            f"{short_name(dtype)}"
        )


def _check_finite(weight: Tensor, stored: StoredTensor) -> None:
    """Raises unless every value is finite. The extremes tell, without a second tensor: NaN spreads to both."""
    lowest, highest = torch.aminmax(weight)
    if bool(torch.isfinite(lowest) & torch.isfinite(highest)):
        return
    bad = (~torch.isfinite(weight)).nonzero()
    where, value = bad[0].tolist(), weight[tuple(bad[0])].item()
    message = f"{stored.file}: {stored.name} holds {len(bad)} values that are NaN or infinite"
    if weight.dtype != stored.dtype and bool(torch.isfinite(stored.copy()).all()):
        message = f"{stored.file}: {stored.name} has {len(bad)} values too large for {weight.dtype}: choose bfloat16"
    raise CheckpointError(f"{message}, the first ({value}) at {where}, of shape {tuple(weight.shape)}")
