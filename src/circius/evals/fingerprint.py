"""What tells one checkpoint from another at a glance: a digest of a little of each of its files."""

import hashlib
from pathlib import Path

from circius.evals.identity import files_of

_SAMPLE_BYTES = 1 << 16


def fingerprint(path: Path) -> str:
    """A SHA-256 over the names and sizes of a checkpoint's files, and 64 KiB at the beginning, middle and end of each.

    It takes no time even for many gigabytes. Training moves every weight, so another model has another fingerprint; a
    file changed by hand in one place may not. Where that matters, `circius.evals.identity.digest_of` reads everything.
    """
    digest = hashlib.sha256()
    for file in files_of(path):
        size = file.stat().st_size
        digest.update(f"{file.name if path.is_dir() else ''}\0{size}\0".encode())
        with file.open("rb") as opened:
            for begin in dict.fromkeys((0, max(0, size // 2), max(0, size - _SAMPLE_BYTES))):
                opened.seek(begin)
                digest.update(opened.read(_SAMPLE_BYTES))
    return digest.hexdigest()
