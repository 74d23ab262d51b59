"""How a program is shut in: the command around Python, by bubblewrap or by util-linux's unshare.

Both give the program no network and no privileges, and show it the same small file tree (`tree.py`). Neither mounts
/proc: there is nothing about processes to be read. The tree is entered by chroot, which also keeps the program from
making user namespaces of its own, with privileges in them.

Linux lets root have as many processes as it likes, whatever its limit. So where circius itself runs as root, the
program runs as a user that nobody else is, with a number of its own for each run.
"""

import os
import secrets
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from circius.evals.sandbox.limits import Limits
from circius.evals.sandbox.tree import DEVICES, FOLDER, find_tree, make_skeleton, mounts_below, read_only_options

Kind = Literal["bwrap", "unshare", "none"]

_FIRST_USER, _N_USERS = 2_000_000_000, 100_000_000
_TOOLS: dict[Kind, tuple[str, ...]] = {
    "bwrap": ("bwrap", "chroot", "setpriv"),
    "unshare": ("unshare", "mount", "chroot", "setpriv", "sh"),
    "none": (),
}
_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"

# Arguments: the root of the jail, the options of its folder, then pairs of (path, mount options) up to --, then the
# command. The root is made read-only first, while nothing is mounted in it.
_BUILD = """
set -eu
root=$1 folder=$2; shift 2
mount -o bind,ro,nosuid,nodev "$root" "$root"
while [ "$1" != -- ]; do mount -o "$2" "$1" "$root$1"; shift 2; done
shift
mount -t tmpfs -o "$folder" jail "$root/tmp"
chroot "$root" "$@"
"""


@dataclass(frozen=True, kw_only=True)
class Jail:
    """A way of shutting a program in; `kind` is "none" where it is not shut in at all."""

    kind: Kind

    @property
    def limits_processes(self) -> bool:
        """Whether a limit of processes counts the program's alone; without a jail it would count the whole user's."""
        return self.kind != "none"

    def folder(self, scratch: Path) -> str:
        """The program's working folder as it sees it."""
        return str(scratch) if self.kind == "none" else FOLDER

    def command(self, python: Sequence[str], limits: Limits, scratch: Path) -> list[str]:
        """The command that runs `python` in the jail. `scratch` is an empty folder that lives as long as the run."""
        if self.kind == "none":
            return list(python)
        wall = _bwrap if self.kind == "bwrap" else _unshare
        return [*wall(limits, scratch), *_unprivileged(), *python]


def environment() -> dict[str, str]:
    """All that the program sees of an environment. The hash seed is fixed, so that sets have one order everywhere."""
    return {"PATH": _PATH, "HOME": FOLDER, "TMPDIR": FOLDER, "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}


def interpreter() -> list[str]:
    """Python as the program gets it: this one, the standard library alone, nothing of the user's."""
    return [os.path.realpath(sys.executable), "-S", "-s", "-P", "-B"]


def tools_missing(kind: Kind) -> list[str]:
    """What a kind of jail needs and this machine does not have."""
    return [tool for tool in _TOOLS[kind] if _find(tool) is None]


def _find(tool: str) -> str | None:
    return shutil.which(tool) or shutil.which(tool, path=_PATH)


def _is_root() -> bool:
    return os.geteuid() == 0


def _unprivileged() -> list[str]:
    """Takes every privilege from what follows, and for root its very identity."""
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    if _is_root():
        user = str(_FIRST_USER + secrets.randbelow(_N_USERS))
        command += [f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    return command


def _bwrap(limits: Limits, scratch: Path) -> list[str]:
    jail, tree = "/jail", find_tree()
    make_skeleton(scratch / "root", tree)
    command = [_find("bwrap") or "bwrap", "--die-with-parent", "--new-session", "--tmpfs", "/"]
    command += [f"--unshare-{space}" for space in ("ipc", "pid", "net", "uts", "cgroup-try")]
    command += [] if _is_root() else ["--unshare-user"]
    for name, target in tree.links:  # chroot and setpriv need their libraries outside of the jail as well
        command += ["--symlink", target, name]
    command += [word for name in tree.shown for word in ("--ro-bind", name, name)]
    command += ["--ro-bind", str(scratch / "root"), jail]
    command += [word for name in tree.shown for word in ("--ro-bind", name, f"{jail}{name}")]
    command += [word for name in DEVICES for word in ("--dev-bind", name, f"{jail}{name}")]
    command += [
        "--perms",
        "1777",
        "--size",
        str(limits.folder_bytes),
        "--tmpfs",
        f"{jail}{FOLDER}",
        "--remount-ro",
        "/",
    ]
    for capability in ("SYS_CHROOT", "SETPCAP", *(("SETUID", "SETGID") if _is_root() else ())):
        command += ["--cap-add", f"CAP_{capability}"]
    return [*command, "--", _find("chroot") or "chroot", jail]


def _unshare(limits: Limits, scratch: Path) -> list[str]:
    root, tree = scratch / "root", find_tree()
    make_skeleton(root, tree)
    mounts = [pair for name in DEVICES for pair in (name, "bind")]
    for name in tree.shown:
        mounts += [name, f"r{read_only_options(name)}"]
        mounts += [word for inner in mounts_below(name) for word in (inner, read_only_options(inner))]
    folder = f"size={limits.folder_bytes},nr_inodes=4k,mode=1777,nosuid,nodev"
    spaces = ["--mount", "--propagation=private", "--net", "--pid", "--ipc", "--uts", "--cgroup"]
    spaces += [] if _is_root() else ["--user", "--map-root-user"]
    # Whoever kills us kills unshare, and unshare's end is the end of the first process and so of all in the jail.
    lead = ["setpriv", "--pdeathsig=KILL", "unshare", *spaces, "--fork", "--kill-child=KILL"]
    return [*lead, "sh", "-c", _BUILD, "jail", str(root), folder, *mounts, "--"]
