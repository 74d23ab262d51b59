"""How much memory a tree of processes uses, from /proc."""

import os
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def memory_of_tree(root: int) -> int:
    """Bytes that a process and everything below it have in memory; what they share counts for each of them.

    0 where there is no /proc, or nothing left of the tree.
    """
    return sum(map(_resident_bytes, _tree(root)))


def _tree(root: int) -> Iterator[int]:
    waiting = [root]
    while waiting:
        process = waiting.pop()
        yield process
        waiting += _children(process)


def _children(process: int) -> list[int]:
    children: list[int] = []
    try:
        for thread in (_PROC / str(process) / "task").iterdir():
            children += map(int, (thread / "children").read_text().split())
    except (OSError, ValueError):  # it ended while we looked
        pass
    return children


def _resident_bytes(process: int) -> int:
    try:
        return int((_PROC / str(process) / "statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0
