"""What tells one model from another: the digest of its files, or of its weights in memory."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from circius.model import Transformer

OnBytes = Callable[[int, int], object]
_WEIGHTS = frozenset({".safetensors", ".gguf", ".pth", ".bin"})
_SHAPES = frozenset({"config.json", "params.json"})
_BLOCK = 1 << 22


def files_of(path: Path) -> list[Path]:
    """The files that decide what a checkpoint computes: the weights, and the shape."""
    if path.is_file():
        return [path]
    return sorted(file for file in path.iterdir() if file.suffix in _WEIGHTS or file.name in _SHAPES)


def digest_of(path: Path, on_bytes: OnBytes = lambda done, total: None) -> str:
    """The SHA-256 of a file's contents; of a folder, over the names, sizes and contents of the checkpoint's files."""
    files = files_of(path)
    digest = hashlib.sha256()
    done, total = 0, sum(file.stat().st_size for file in files)
    for file in files:
        if path.is_dir():
            digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        for block in _blocks(file):
            digest.update(block)
            done += len(block)
            on_bytes(done, total)
    return digest.hexdigest()


def digest_of_weights(model: Transformer) -> str:
    """The same for a model that was made in memory: over the names, shapes and contents of its weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}\0{tuple(tensor.shape)}\0{tensor.dtype}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _blocks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK):
            yield block
