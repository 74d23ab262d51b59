"""All or nothing on disk: a folder or a file is written beside its target and renamed when it is whole.

After an error nothing is left. Only a process that is killed leaves its unfinished `.NAME.partial-...` behind.
"""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from circius.base.errors import StorageError

SLACK_BYTES = 1 << 20  # headers, indices and JSON files, beside the tensors
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_CHECKPOINT_SUFFIXES = frozenset(
    {".json", ".safetensors", ".pth", ".bin", ".gguf", ".model", ".v1", ".v2", ".v3", ".jinja", ".txt", ".md"}
)
_CHECKPOINT_NAMES = frozenset({"LICENSE", ".gitattributes", ".gitignore"})
_CHECKPOINT_PATTERNS = ("config.json", "params.json", "*.safetensors", "*.pth", "*.bin", "*.gguf")


@contextmanager
def new_folder(target: Path, *, n_bytes: int, overwrite: bool = False) -> Iterator[Path]:
    """Yields a temporary sibling folder that becomes `target` at the end; after any exception nothing of it is left.

    n_bytes: what will be written; checked against the free space first. A folder in the way is replaced only with
    `overwrite`, only after the new one is whole, and only if it is empty or holds a checkpoint and nothing else.

    Raises:
        StorageError: the target exists, the disk is too small or fills up, or writing is not permitted.
    """
    target = _real(target)
    if target.is_file():
        raise StorageError(f"{target} is a file: name a folder")
    _check_free_to_write(target, overwrite)
    foreign = _foreign_file(target) if target.is_dir() else None
    if foreign is not None:
        raise StorageError(
            f"{target} holds {foreign.name}, which belongs to no checkpoint, so the folder is not replaced: "
            "choose another, or move that away"
        )
    with _beside(target, n_bytes) as temporary:
        temporary.mkdir()
        yield temporary
        _sync(temporary)


@contextmanager
def new_file(target: Path, *, n_bytes: int, overwrite: bool = False) -> Iterator[Path]:
    """Yields a temporary sibling path to write; the file there becomes `target` at the end.

    Raises:
        StorageError: as `new_folder`.
    """
    target = _real(target)
    if target.is_dir():
        raise StorageError(f"{target} is a folder: name a file inside it")
    _check_free_to_write(target, overwrite)
    with _beside(target, n_bytes) as temporary:
        yield temporary
        _sync_file(temporary)


def check_space(folder: Path, n_bytes: int) -> None:
    """Checks that `n_bytes` and a little fit beside what is in `folder`, which need not exist yet.

    Raises:
        StorageError: they do not; the message says how much is needed and how much is free.
    """
    free = shutil.disk_usage(_nearest_existing(folder)).free
    if free < n_bytes + SLACK_BYTES:
        raise StorageError(
            f"not enough disk space in {folder}: {in_units(n_bytes)} needed, {in_units(free)} free; "
            "free some or choose another place"
        )


def holds_checkpoint(folder: Path) -> bool:
    """Whether a folder holds at least one file of a checkpoint: a configuration or weights."""
    return any(True for pattern in _CHECKPOINT_PATTERNS for _ in folder.glob(pattern))


def in_units(n_bytes: int) -> str:
    """A number of bytes for people.

    >>> in_units(14_483_464_192), in_units(900)
    ('14.48 GB', '900 B')
    """
    amount = float(n_bytes)
    for unit in ("B", "KB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}"
        amount /= 1000
    return f"{amount:.2f} GB"


def _foreign_file(folder: Path) -> Path | None:
    """The first thing in a folder that is no part of a checkpoint; None if all of it is, or there is nothing."""
    entries = sorted(folder.iterdir())
    for entry in entries:
        is_known = entry.suffix in _CHECKPOINT_SUFFIXES or entry.name in _CHECKPOINT_NAMES
        if entry.is_dir() or not is_known:
            return entry
    return entries[0] if entries and not holds_checkpoint(folder) else None


def _check_free_to_write(target: Path, overwrite: bool) -> None:
    is_empty_folder = target.is_dir() and not any(target.iterdir())
    if target.exists() and not overwrite and not is_empty_folder:
        raise StorageError(f"{target} exists already: choose another name, or overwrite it deliberately")


@contextmanager
def _beside(target: Path, n_bytes: int) -> Iterator[Path]:
    check_space(target.parent, n_bytes)
    temporary = target.with_name(f".{target.name}.partial-{uuid.uuid4().hex[:12]}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _rename_over(temporary, target)
    except OSError as error:
        explained = _storage_error(error, target, n_bytes)  # before the space is given back
        _remove(temporary)
        raise explained from error
    except BaseException:
        _remove(temporary)
        raise


def _storage_error(error: OSError, target: Path, n_bytes: int) -> StorageError:
    free = shutil.disk_usage(_nearest_existing(target.parent)).free
    # numpy reports a short write as an OSError without a number.
    if error.errno in _NO_ROOM or (error.errno is None and free < n_bytes):
        return StorageError(
            f"no space left while writing {target}: {in_units(n_bytes)} needed, {in_units(free)} free now; "
            "nothing was kept"
        )
    return StorageError(f"cannot write {target}: {error.strerror or error}; nothing was kept")


def _rename_over(temporary: Path, target: Path) -> None:
    if target.is_dir():
        old = target.with_name(f".{target.name}.old-{uuid.uuid4().hex[:12]}")
        target.rename(old)
        try:
            temporary.rename(target)
        except OSError:
            old.rename(target)
            raise
        shutil.rmtree(old)
    else:
        temporary.replace(target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    elif path.exists():
        path.unlink()


def _real(target: Path) -> Path:
    return Path(target).expanduser().resolve()


def _nearest_existing(folder: Path) -> Path:
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            _sync_file(path)


def _sync_file(path: Path) -> None:
    """Waits until the file is on the disk, so that a crash after the rename cannot leave an empty one."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
