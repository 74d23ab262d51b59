"""How fast a device is at most in the number format of a run's products: what MFU is a share of."""

import torch

from circius.kernels.ceilings import measure_ceilings
from circius.kernels.precision import multiplies_fast
from circius.train.config import RunConfig

_SIDES = {"cpu": 1024, "cuda": 8192}
"""Of the square matrices by whose product it is measured."""


def peak_operations(config: RunConfig, device: torch.device) -> float | None:
    """Operations a second, measured now; None if nobody knows of that format here."""
    dtype = torch.bfloat16 if config.dtype == "bfloat16" and config.quantize != "int4" else torch.float32
    products = dtype if multiplies_fast(dtype, device) else torch.float32
    side = _SIDES.get(device.type, 1024)
    return measure_ceilings(device, read_bytes=2**20, side=side).multiply.get(str(products).removeprefix("torch."))
