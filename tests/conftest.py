"""What every test shares: one thread a process, so that parallel runs do not fight, a fixed seed, the demo model."""

from pathlib import Path

import pytest
import torch

from circius.base.errors import DownloadError


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def demo_gguf() -> Path:
    """The real demo model, downloaded once and then kept where `circius pull demo` keeps it."""
    from circius.weights.hub import pull

    try:
        return pull("demo")
    except DownloadError as error:
        pytest.skip(f"the demo model could not be downloaded: {error}")
