"""Where a mathematical solution says its answer."""

import pytest

from circius.base.errors import InvalidInputError
from circius.evals.scoring.maths import extract, final_answer, gold, last_boxed

SENTENCE = "Final Answer: The final answer is {}. I hope it is correct."


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        (r"so $\boxed{\frac{1}{2}}$", r"\frac{1}{2}"),
        (r"first \boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{x} and then \boxed{unclosed", "x"),
        (r"\fbox{7}", "7"),
        (r"$\boxed 7$ units", "7"),
        (r"\boxed {3}", "3"),
        ("nothing", None),
        (r"\boxed{", None),
        (r"\boxed{}", ""),
    ],
)
def test_last_box(text: str, inside: str | None) -> None:
    assert last_boxed(text) == inside


def test_final_sentence() -> None:
    assert final_answer(f"Work.\n{SENTENCE.format('$2.5$')}") == "$2.5$"
    assert final_answer(f"{SENTENCE.format('4')}\n\nProblem: other\n{SENTENCE.format('5')}") == "4"
    assert final_answer("The final answer is 4.") is None


def test_the_sentence_goes_before_the_box() -> None:
    assert extract(rf"\boxed{{3}} but {SENTENCE.format('$x = 4$')}") == "4"
    assert extract(r"therefore \boxed{\dfrac12}") == r"\frac{1}{2}"
    assert extract("no answer") is None
    assert extract(SENTENCE.format("$$")) is None


def test_gold() -> None:
    assert gold(r"We get $\boxed{12{,}000 \text{ dollars}}$.") == "12000"
    with pytest.raises(InvalidInputError, match="boxed"):
        gold("no box")
