"""What a stream refuses, how it mixes, and that its order is never another one."""

import json
from typing import Any

import pytest

from circius.base.errors import InvalidInputError
from circius.train.order import permutation
from circius.train.packing import each_once
from circius.train.stream import Stream
from tests.unit.train.listed import Listed

A, B = Listed("a", [3, 4, 5], number=1), Listed("b", [2] * 10, number=2)


@pytest.mark.parametrize(
    ("sources", "options", "complaint"),
    [
        ([], {}, r"a stream needs one source or more, no two of one name, got \[\]"),
        ([A, A], {}, r"no two of one name, got \['a', 'a'\]"),
        ([Listed("empty", [])], {}, "empty: no examples to draw from"),
        ([A], {"batch_tokens": 4}, "a: example 2 has 5 tokens, more than the 4 of a batch"),
        ([A, B], {"weights": [1]}, r"weights must be one positive number for each of the sources \['a', 'b'\]"),
        ([A, B], {"weights": [1, 0]}, r"got \[1, 0\]: leave a source out instead of giving it 0"),
        ([A, B], {"weights": [1, float("nan")]}, "weights must be one positive number"),
        ([A, B], {"weights": [1, float("inf")]}, "weights must be one positive number"),
    ],
)
def test_what_is_refused(sources: Any, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        Stream(sources, **{"batch_tokens": 8, **options})


@pytest.mark.parametrize("own", [[-1], [3], range(4)])
def test_batches_that_are_not_among_the_next(own: Any) -> None:
    stream = Stream([A], batch_tokens=8)
    before = stream.state()
    with pytest.raises(InvalidInputError, match="own batches must be from 0 to 2"):
        stream.next(3, own)
    assert stream.state() == before


def test_the_order_is_the_same_for_ever() -> None:
    """A run must go on after an update of numpy, or of circius: these numbers may never change."""
    assert permutation(10, 0, 0, 0).tolist() == GOLDEN[0]
    assert permutation(10, 1, 2, 3).tolist() == GOLDEN[1]
    drawn = [batch.tokens.unique().tolist() for batch in Stream([A, B], batch_tokens=12, seed=5).next(4)]
    assert drawn == GOLDEN[2]


GOLDEN: list[Any] = [
    [6, 3, 8, 4, 0, 7, 2, 1, 5, 9],
    [0, 2, 3, 6, 7, 5, 1, 8, 9, 4],
    [
        [1000, 2001, 2002, 2007, 2008],
        [1001, 2004, 2005, 2006, 2009],
        [1002, 2000, 2003, 2008],
        [1000, 2002, 2005, 2006, 2009],
    ],
]


def test_a_permutation_is_one_and_depends_on_every_part_of_its_key() -> None:
    seen = {tuple(permutation(50, *key).tolist()) for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0)]}
    assert len(seen) == 5
    assert all(sorted(order) == list(range(50)) for order in seen)


def test_a_permutation_moves_everything_everywhere() -> None:
    """Each number is in each place about as often: chi-squared over 2,000 orders of 8 (49 degrees of freedom)."""
    counts = [[0] * 8 for _ in range(8)]
    for seed in range(2000):
        for place, number in enumerate(permutation(8, seed, 0, 0).tolist()):
            counts[number][place] += 1
    assert 25 < 7 / 8 * sum((n - 250) ** 2 / 250 for row in counts for n in row) < 85


def test_weights_are_shares_of_the_examples_drawn() -> None:
    stream = Stream([A, B], weights=[3, 1], batch_tokens=5)
    stream.next(400)
    drawn = {one["name"]: one["epoch"] * one["n_examples"] + one["place"] for one in stream.state()["sources"]}
    assert abs(drawn["a"] - 3 * drawn["b"]) <= 4
    assert stream.epochs == {"a": drawn["a"] / 3, "b": drawn["b"] / 10}


def test_without_weights_all_sources_are_walked_equally_often() -> None:
    stream = Stream([A, B], batch_tokens=5)
    stream.next(300)
    a, b = stream.epochs.values()
    assert a == pytest.approx(b, abs=0.4)


def test_a_state_is_small_and_made_of_json() -> None:
    stream = Stream([A, B], batch_tokens=8, seed=3)
    stream.next(100)
    state = json.loads(json.dumps(stream.state()))
    assert len(json.dumps(state)) < 300
    again = Stream([A, B], batch_tokens=8, seed=3)
    again.restore(state)
    assert again.state() == stream.state()


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        (Stream([A, B], batch_tokens=8, seed=1), "a stream with seed 0, this one has 1"),
        (Stream([A], batch_tokens=8), r"sources with name \['a', 'b'\], this stream has \['a'\]"),
        (Stream([A, Listed("b", [2] * 9)], batch_tokens=8), "with n_examples"),
        (Stream([A, B], weights=[1, 1], batch_tokens=8), "with share"),
    ],
)
def test_states_of_other_data(other: Stream, complaint: str) -> None:
    stream = Stream([A, B], batch_tokens=8)
    stream.next(5)
    before = other.state()
    with pytest.raises(InvalidInputError, match=complaint):
        other.restore(stream.state())
    assert other.state() == before


def test_an_evaluation_reads_every_example_once_in_order() -> None:
    batches = list(each_once(Listed("x", [3, 3, 2, 5, 8, 1]), 8))
    assert [batch.lengths for batch in batches] == [[3, 3, 2], [5], [8], [1]]
    assert [batch.tokens.unique().tolist() for batch in batches] == [[0, 1, 2], [3], [4], [5]]
    with pytest.raises(InvalidInputError, match="x: example 1 has 9 tokens"):
        list(each_once(Listed("x", [3, 9]), 8))
