"""Changing the dtype of a weight: refused where a value would not survive."""

from collections.abc import Iterator

import torch
from torch import Tensor

from circius.base.errors import CheckpointError, InvalidInputError

STORED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_BLOCK = 1 << 24  # values checked at a time, so that a check needs no more than 64 MB


def short_name(dtype: torch.dtype) -> str:
    """The name of a dtype as people write it.

    >>> short_name(torch.bfloat16)
    'bfloat16'
    """
    return str(dtype).removeprefix("torch.")


def check_stored_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype given, if weights are stored in it.

    Raises:
        InvalidInputError: it is none of float32, bfloat16 and float16.
    """
    if dtype not in STORED_DTYPES:
        allowed = ", ".join(map(short_name, STORED_DTYPES))
        raise InvalidInputError(f"weights are stored in {allowed}, not in {short_name(dtype)}: give one of these")
    return dtype


def cast(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor in another dtype, rounded to the nearest value.

    Raises:
        CheckpointError: a finite value is too large for `dtype`; the message names the tensor.
    """
    if tensor.dtype == dtype:
        return tensor
    result = torch.empty(tensor.shape, dtype=dtype)
    for source, rounded in _blocks(tensor, result):
        rounded.copy_(source)
        overflown = torch.isinf(rounded) & torch.isfinite(source)
        if overflown.any():
            value = source[overflown].abs().max().item()
            raise CheckpointError(
                f"{name} holds {value:.4g}, above the largest {short_name(dtype)} value "
                f"({torch.finfo(dtype).max:.6g}): choose bfloat16 or float32"
            )
    return result


def fits_exactly(tensor: Tensor, dtype: torch.dtype) -> bool:
    """Whether every value of the tensor is also a value of `dtype`; NaN counts as one value.

    >>> fits_exactly(torch.tensor([0.5, float("nan")]), torch.bfloat16), fits_exactly(torch.tensor(0.1), torch.bfloat16)
    (True, False)
    """
    for (block,) in _blocks(tensor):
        back = block.to(dtype).to(block.dtype)
        if not torch.equal(back.nan_to_num(nan=0.0), block.nan_to_num(nan=0.0)):
            return False
    return True


def _blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    flat = [tensor.reshape(-1) for tensor in tensors]
    return zip(*(torch.split(one, _BLOCK) for one in flat), strict=True)
