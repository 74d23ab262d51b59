"""Mapping pages ahead: they are there afterwards, and nothing goes wrong where the system refuses."""

import resource
import sys
from pathlib import Path

import pytest
import torch

from circius.weights.map_ahead import map_ahead
from circius.weights.stored import map_bytes

N_BYTES = 64 * 2**20


def faults_of_reading(tensor: torch.Tensor) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    assert int(tensor[::4096].sum()) == 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "zeros"
    path.write_bytes(bytes(N_BYTES))
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the call")
def test_pages_are_mapped_when_it_is_through(file: Path) -> None:
    faults = faults_of_reading(map_bytes(file, 0, N_BYTES))
    mapped = [map_bytes(file, offset, N_BYTES // 2 - 64) for offset in (0, N_BYTES // 2 + 64)]
    map_ahead(mapped).join()
    assert sum(map(faults_of_reading, mapped)) < faults / 4


def test_memory_that_is_not_of_a_file_is_left_as_it_is() -> None:
    numbers, nothing = torch.arange(10_000), torch.empty(0)
    map_ahead([nothing, numbers]).join()
    assert torch.equal(numbers, torch.arange(10_000))
