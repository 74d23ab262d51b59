"""The file tree that a program sees: Python, the system's programs, a few devices, and one empty folder to write to."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = "/tmp"
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")

_SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc/ld.so.cache",
    "/nix/store",
    "/gnu/store",
)


@dataclass(frozen=True, kw_only=True)
class Tree:
    """What of this machine's files is shown.

    Attributes:
        shown: folders and files, shown read-only at their own paths.
        links: symbolic links of the system, such as /bin, and their targets.
    """

    shown: tuple[str, ...]
    links: tuple[tuple[str, str], ...]


def find_tree() -> Tree:
    """The system's programs and libraries, and the Python that runs this, wherever it is installed."""
    pythons = (sys.base_prefix, sys.base_exec_prefix, str(Path(os.path.realpath(sys.executable)).parent.parent))
    shown: list[str] = []
    links: list[tuple[str, str]] = []
    for name in (*_SYSTEM, *map(os.path.realpath, pythons)):
        path = Path(name)
        if name == "/" or not path.exists() or any(path.is_relative_to(other) for other in shown):
            continue
        if path.is_symlink():
            links.append((name, str(path.readlink())))
        else:
            shown.append(name)
    return Tree(shown=tuple(shown), links=tuple(links))


def make_skeleton(root: Path, tree: Tree) -> None:
    """Makes the tree's links and the empty folders and files that the shown ones are mounted over.

    Everything is readable by all: in the jail the program is another user than the one who made this.
    """
    _folder(root, root)
    for name, target in (*tree.links, ("/dev/shm", FOLDER)):
        _folder(root, _below(root, name).parent)
        _below(root, name).symlink_to(target)
    for name in (*tree.shown, *DEVICES):
        place = _below(root, name)
        if Path(name).is_dir():
            _folder(root, place)
        else:
            _folder(root, place.parent)
            place.touch()
    _folder(root, _below(root, FOLDER))


def mounts_below(folder: str) -> Iterator[str]:
    """Mount points inside a folder, which would stay writable if only the folder itself were made read-only."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        point = line.split()[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
        if point.startswith(f"{folder}/"):
            yield point


def read_only_options(path: str) -> str:
    """Mount options for a bind mount that is only read; a user namespace may not drop those that the mount has."""
    flags = os.statvfs(path).f_flag
    # Python has names for these flags but not for ST_NODEV, which is 4.
    kept = {"nodev": 4, "noexec": 8, "noatime": 1024, "nodiratime": 2048}
    return ",".join(["bind,ro,nosuid", *(name for name, bit in kept.items() if flags & bit)])


def _below(root: Path, name: str) -> Path:
    return root / name.lstrip("/")


def _folder(root: Path, path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
    while True:
        path.chmod(0o755)
        if path == root:
            return
        path = path.parent
