"""Word F1, and QuAC's way with several references."""

import pytest

from circius.base.errors import InvalidInputError
from circius.evals.scoring.f1 import (
    CANNOT_ANSWER,
    best_f1,
    human_f1,
    quac_f1,
    quac_references,
    quac_span,
    word_f1,
)


@pytest.mark.parametrize(
    ("answer", "reference", "wanted"),
    [
        ("the cat", "a cat", 1.0),
        ("black cat", "cat", 2 / 3),
        ("cat cat", "cat", 2 / 3),
        ("cat cat", "cat cat dog", 0.8),
        ("dog", "cat", 0.0),
        ("", "", 0.0),
        ("the", "a", 0.0),
    ],
)
def test_word_f1(answer: str, reference: str, wanted: float) -> None:
    assert word_f1(answer, reference) == pytest.approx(wanted)
    assert word_f1(reference, answer) == pytest.approx(wanted)


def test_the_nearest_reference_counts() -> None:
    assert best_f1("red car", ["blue car", "red car"]) == 1.0
    with pytest.raises(InvalidInputError):
        best_f1("red car", [])


def test_leaving_one_out() -> None:
    """By hand: without the first the best is 2/3, without the second 1, without the third 1."""
    assert quac_f1("red car", ["red car", "fast red old car", "bus"]) == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert quac_f1("red car", ["red car"]) == 1.0
    # Each of two equal references is left out in turn, and the other is still there.
    assert quac_f1("red car", ["red car", "red car"]) == 1.0
    assert quac_f1("red car", ["red car", "bus"]) == 0.5


def test_the_majority_decides_whether_a_question_can_be_answered() -> None:
    assert quac_references([CANNOT_ANSWER, "a", CANNOT_ANSWER, "b"]) == (CANNOT_ANSWER,)
    assert quac_references([CANNOT_ANSWER, "a", "b"]) == ("a", "b")
    assert quac_references(["a"]) == ("a",)
    with pytest.raises(InvalidInputError):
        quac_references([])


def test_cannot_answer_is_right_or_wrong() -> None:
    assert quac_f1(CANNOT_ANSWER, [CANNOT_ANSWER, CANNOT_ANSWER]) == 1.0
    assert quac_f1("CANNOTANSWER really", [CANNOT_ANSWER]) == 0.0
    assert quac_f1(CANNOT_ANSWER, ["a red car"]) == 0.0


@pytest.mark.parametrize(
    ("text", "span"),
    [
        (" Cannot answer. ", CANNOT_ANSWER),
        ("Do not know", CANNOT_ANSWER),
        ("not enough information", CANNOT_ANSWER),
        ("I do not know him", "I do not know him"),
        (" a red car ", "a red car"),
    ],
)
def test_ways_of_not_knowing(text: str, span: str) -> None:
    assert quac_span(text) == span


def test_how_well_people_agree() -> None:
    assert human_f1(["red car"]) == 1.0
    assert human_f1([CANNOT_ANSWER, CANNOT_ANSWER]) == 1.0
    # 1 for each of the twins, 2/3 for the longer one.
    assert human_f1(["red car", "red car", "fast red old car"]) == pytest.approx((1 + 1 + 2 / 3) / 3)
    assert human_f1(["red car", "bus"]) == 0.0
