"""Which number formats a processor multiplies fast, and which it only carries."""

from functools import cache

import torch


def multiplies_fast(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether matrix products in `dtype` run on units made for it, and not in a loop that converts number by number.

    GPUs do. A CPU does for float32; for bfloat16 and float16 only if oneDNN has kernels for its instructions
    (AVX-512, AMX, or Arm's own). Without them a product of matrices takes several times as long as in float32, though
    one with a single row does not: that one waits for memory.
    """
    return device.type != "cpu" or dtype == torch.float32 or _has_cpu_kernels(dtype)


@cache
def _has_cpu_kernels(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    name = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}.get(dtype)
    return name is not None and bool(getattr(torch.ops.mkldnn, name)())
