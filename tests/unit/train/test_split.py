"""Parameters of which two processes hold a part each: norms, steps and adapters are those of whole ones."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes says."""
    store = tmp_path_factory.mktemp("store") / "store"
    command = [sys.executable, "-m", "tests.unit.train.split_worker"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [*command, str(rank), "2", str(store)], stdout=subprocess.PIPE, text=True, env=environment,
            cwd=Path(__file__).parents[3],
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=120)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0]
    return [json.loads(text.splitlines()[-1]) for text in said]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_norms_and_steps_are_those_of_whole_parameters(found: list[dict[str, Any]], dtype: str) -> None:
    for one in found:
        *norms, same, moved = one["steps"][dtype]
        assert norms[:2] == pytest.approx(norms[2:], rel=1e-6)
        assert norms[0] > 3
        assert same
        assert moved


def test_muon_says_that_it_needs_whole_matrices(found: list[dict[str, Any]]) -> None:
    assert all("muon needs whole matrices, but m is spread over processes" in one["muon"] for one in found)


def test_an_adapter_comes_together_again(found: list[dict[str, Any]]) -> None:
    assert all(one["adapter"] for one in found)
