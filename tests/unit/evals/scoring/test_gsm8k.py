"""GSM8K's final numbers."""

import pytest

from circius.base.errors import InvalidInputError
from circius.evals.scoring.gsm8k import extract, gold, plain_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She makes 9 * 2 = $18. The answer is 18.", "18"),
        ("The answer is $1,200.50.", "1200.5"),
        ("The answer is 18.00", "18"),
        ("The answer is -5.\n\nQ: More? The answer is 7.", "-5"),
        ("the answer is: 42", "42"),
        ("So he has 3 apples and 12 pears", "12"),
        ("The answer is twelve, that is 12", "12"),
        ("It costs $5,000", "5000"),
        ("a loss of -$30 or so", "-30"),
        ("from 5-3 we get 2.", "2"),
        ("half is .5", "0.5"),
        ("nothing at all", None),
        ("", None),
        ("The answer is .", None),
    ],
)
def test_extraction(text: str, number: str | None) -> None:
    assert extract(text) == number


def test_gold() -> None:
    assert gold("Work 1.\n#### 1,234") == "1234"
    with pytest.raises(InvalidInputError, match="'#### NUMBER'"):
        gold("no hashes, 12")
    with pytest.raises(InvalidInputError):
        gold("#### many")


@pytest.mark.parametrize("number", ["1", "-1", "0", "0.25", "1200", "-3.5"])
def test_plain_numbers_stay(number: str) -> None:
    assert plain_number(number) == number


@pytest.mark.parametrize("text", ["", "-", "$", "1-2", "٣", "1e5", "inf", "."])
def test_what_is_no_number(text: str) -> None:
    assert plain_number(text) is None
