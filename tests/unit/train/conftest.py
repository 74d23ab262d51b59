"""What tests of whole runs share."""

from pathlib import Path

import pytest

from tests.unit.train.runs import run_in, write_data


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `write_data` makes."""
    folder = tmp_path_factory.mktemp("train") / "data"
    write_data(folder)
    return folder


@pytest.fixture(scope="session")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 steps that nobody disturbed."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    run_in(data, run)
    return run
