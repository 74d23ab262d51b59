"""A store with a few items of every benchmark, and a tiny model of bytes, for all tests of this folder."""

import pytest

from circius.evals.engine_model import EngineModel
from circius.evals.task import Sources
from tests.unit.engine.tiny import byte_llm
from tests.unit.evals.small_data import small_store


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources(home=small_store(tmp_path_factory.mktemp("eval")))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> EngineModel:
    """Its tokens are bytes, its window is 40."""
    llm = byte_llm(tmp_path_factory.mktemp("tiny"), window=40, context=4096, chunk_size=64)
    return EngineModel(llm, max_streams=4, name="tiny")
