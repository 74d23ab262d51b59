"""Where and in which number type a model runs, from what a caller wrote."""

from typing import cast, get_args

import torch

from circius.base.errors import InvalidInputError, ParamsError
from circius.kernels import ring_attention
from circius.kernels.packed_linear import Activations
from circius.model import Transformer
from circius.model.layers import Linear
from circius.model.packed_layers import PackedWeight

_DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "f32": torch.float32,
    "float16": torch.float16,
    "fp16": torch.float16,
    "f16": torch.float16,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
}


def pick_dtype(dtype: str | torch.dtype) -> torch.dtype | None:
    """The torch dtype of a name such as "bfloat16" or "bf16"; None for "auto", which is left to the checkpoint.

    Raises:
        InvalidInputError: an unknown name, or a type in which the model is not computed.
    """
    if dtype == "auto":
        return None
    found = _DTYPES.get(dtype.lower()) if isinstance(dtype, str) else dtype
    if found not in _DTYPES.values():
        raise InvalidInputError(f"dtype must be auto, float32, bfloat16 or float16, got {dtype!r}")
    return found


_ROBUST = 1_000_000_000
"""Models of fewer parameters feel rounded inputs more than they gain by them."""


def pick_activations(activations: str, n_parameters: int) -> Activations:
    """How packed weights take their inputs, from its name; "auto" goes by the size of the model.

    Raises:
        InvalidInputError: none of "auto", "int8" and "float".
    """
    if activations == "auto":
        return "int8" if n_parameters >= _ROBUST else "float"
    for known in get_args(Activations):
        if activations == known:
            return cast(Activations, known)
    raise InvalidInputError(f"activations must be auto, int8 or float, got {activations!r}")


def pick_cache_dtype(kv_bits: int | None, dtype: torch.dtype) -> torch.dtype | None:
    """The dtype of caches with that many bits a number, for a model of `dtype`; None for None, which is the model's.

    16 bits are the model's own where it has 16, else float16.

    Raises:
        InvalidInputError: not 8, 16 or 32.
    """
    if kv_bits is None:
        return None
    sixteen = dtype if dtype.itemsize == 2 else torch.float16
    found = {8: torch.int8, 16: sixteen, 32: torch.float32}.get(kv_bits) if type(kv_bits) is int else None
    if found is None:
        raise InvalidInputError(f"kv_bits must be 8, 16 or 32, got {kv_bits!r}")
    return found


def pick_device(device: str | torch.device) -> tuple[torch.device, str | None]:
    """The device, and a sentence about it if it was chosen here: "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        InvalidInputError: torch does not know the device, or this machine does not have it.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda"), f"device: cuda ({torch.cuda.get_device_name()})"
        if torch.backends.mps.is_available():
            return torch.device("mps"), "device: mps"
        return torch.device("cpu"), None
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InvalidInputError(f"device must be auto, cpu, cuda, cuda:N or mps, got {device!r}") from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise InvalidInputError(
            f"device {device} was asked for, but torch {torch.__version__} sees {torch.cuda.device_count()} CUDA "
            "devices: use --device cpu, or install a CUDA build of torch"
        )
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise InvalidInputError("device mps was asked for, but this machine has none: use --device cpu")
    return found, None


def is_exact_in_batches(model: Transformer) -> bool:
    """Whether a token's logits are the same to the last bit whatever it is computed together with.

    The native kernels promise it, and are used for everything if all weights are packed and inputs rounded, or after
    `Transformer.fix_order`; in torch's products the order of additions depends on the shape.
    """
    layers = list(model.modules())
    return (
        model.device.type == "cpu"
        and ring_attention.is_fast()
        and all(layer.fixed_order for layer in layers if isinstance(layer, Linear))
        and all(layer.fixed_order or layer.activations == "int8" for layer in layers if isinstance(layer, PackedWeight))
    )


def set_threads(threads: int | None) -> None:
    """Makes torch use that many threads of the CPU, in the whole process; None leaves torch's own choice.

    Raises:
        ParamsError: not a positive whole number.
    """
    if threads is None:
        return
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ParamsError(f"threads must be a whole number, 1 or more, got {threads!r}")
    torch.set_num_threads(threads)
