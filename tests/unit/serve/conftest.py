"""One server for all tests of this folder that need no server of their own."""

from collections.abc import Iterator

import httpx
import pytest

from tests.serving import Served, loader, serving


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(loader(tmp_path_factory.mktemp("served"))) as own:
        yield own


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    """For the shared server; afterwards nothing may run or be held there."""
    with httpx.Client(base_url=served.url, timeout=60) as own:
        yield own
    served.idle()
