"""Weights from a checkpoint into a model: each read once, checked, and put in its place, mapped where it can be."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from circius.base.errors import CheckpointError, InvalidInputError
from circius.model import Transformer
from circius.weights.checkpoint import open_checkpoint
from circius.weights.memory import available_bytes
from circius.weights.opened import Checkpoint
from circius.weights.stored import FLOAT_DTYPES, StoredTensor

Progress = Callable[[int, int], None]


def load_model(
    source: Path | str | Checkpoint,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    check_finite: bool = True,
    on_progress: Progress | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Transformer:
    """The model of a checkpoint, in evaluation mode and without gradients.

    The model is built without memory, and each weight takes its place in turn. A weight that is stored as it is
    needed stays in the file's mapping, so a whole checkpoint is never in memory twice.

    dtype: None takes `choose_dtype`'s choice.
    check_finite: whether to look at every value for NaN and infinity; without it, mapped weights are not even read.
    on_progress: called with the bytes read so far and in all.
    on_note: called with one sentence for each thing that was chosen here.

    Raises:
        CheckpointError: the checkpoint is damaged, or a weight is not finite.
        InvalidInputError: a dtype that no model can be in.
    """
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source)
    note = on_note or (lambda _: None)
    if dtype is None:
        dtype, reason = choose_dtype(checkpoint, device)
        if reason:
            note(reason)
    elif dtype not in FLOAT_DTYPES:
        allowed = ", ".join(map(str, FLOAT_DTYPES))
        raise InvalidInputError(f"dtype must be one of {allowed}, got {dtype}")
    _note_casts(checkpoint, dtype, note)
    weights: dict[str, Tensor] = {}
    done, total = 0, checkpoint.n_bytes
    for name in checkpoint.names():
        stored = checkpoint.tensors[name]
        weights[name] = checkpoint.read(name, dtype=dtype, device=device)
        if check_finite:
            _check_finite(weights[name], stored)
        done += stored.n_bytes
        if on_progress:
            on_progress(done, total)
    with torch.device("meta"), _Uninitialised():
        model = Transformer(checkpoint.config).requires_grad_(False)
    model.load_state_dict(weights, assign=True)
    return model.eval()


class _Uninitialised(TorchFunctionMode):
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


def _note_casts(checkpoint: Checkpoint, dtype: torch.dtype, note: Callable[[str], None]) -> None:
    """Says which plain weights lose digits; quantised ones are `choose_dtype`'s matter or the caller's wish."""
    if checkpoint.is_quantised:
        return
    rounded = [tensor for tensor in checkpoint.tensors.values() if torch.promote_types(tensor.dtype, dtype) != dtype]
    if rounded:
        found = ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in rounded}))
        note(
            f"{len(rounded)} of {len(checkpoint.tensors)} weights are stored as {found} and rounded to "
            f"{str(dtype).removeprefix('torch.')}"
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
