"""A tiny model with random weights, written once by the command itself."""

from pathlib import Path

import pytest

from tests.e2e.processes import TINY, succeed


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, a window of 32, a context of 256, and a tokenizer whose tokens are bytes."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    assert succeed("init", folder, *TINY).strip() == str(folder)
    return folder
