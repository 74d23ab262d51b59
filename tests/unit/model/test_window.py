"""The window against the paper's own figures."""

import pytest
import torch

from circius.model.window import EMPTY, visible

pytestmark = pytest.mark.quick


def test_figure_1_window_of_three() -> None:
    places = torch.arange(5)
    assert visible(places[:, None], places, 3).int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [0, 1, 1, 1, 0],
        [0, 0, 1, 1, 1],
    ]


def test_figure_3_third_chunk_of_three() -> None:
    """W = 4, chunk three of "The cat sat on / the mat and saw / the dog go to": the past, the cache, the chunk."""
    queries, keys = torch.arange(8, 12), torch.arange(12)
    rows = ["".join(str(int(x)) for x in row) for row in visible(queries[:, None], keys, 4)]
    assert rows == ["0000" + r for r in ("01111000", "00111100", "00011110", "00001111")]


@pytest.mark.parametrize("window", [1, 4, 4096, None])
def test_an_empty_slot_is_never_visible(window: int | None) -> None:
    assert not visible(torch.tensor([0, 5, 2**40]), torch.tensor([EMPTY]), window).any()
