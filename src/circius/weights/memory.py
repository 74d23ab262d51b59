"""How much memory there is for a model."""

import os
import sys
from pathlib import Path

import torch

_MEMINFO = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")


def available_bytes(device: torch.device | str = "cpu") -> int:
    """The bytes that a new model may take on `device` without pushing anything else out.

    On Linux it is the system's own estimate, or what the control group (a container's limit) leaves if that is less;
    on a GPU its free memory; elsewhere all physical memory.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(_system_bytes(), _group_bytes())


def _system_bytes() -> int:
    if _MEMINFO.exists():
        for line in _MEMINFO.read_text().splitlines():
            name, _, rest = line.partition(":")
            if name == "MemAvailable":
                return int(rest.split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _group_bytes() -> int:
    """What the control group leaves; without a limit, more than any machine has."""
    try:
        limit = int((_GROUP / "memory.max").read_text())
        return max(0, limit - int((_GROUP / "memory.current").read_text()))
    except (OSError, ValueError):  # no control group, or its limit is "max"
        return sys.maxsize
