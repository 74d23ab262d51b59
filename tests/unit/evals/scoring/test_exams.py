"""Answers to BIG-Bench Hard and AGIEval in what a model wrote."""

import pytest

from circius.base.errors import InvalidInputError
from circius.evals.scoring import agieval, bbh


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" (B)\n\nQ: next", "(B)"),
        ("\n True.\n", "True"),
        (" ] } ]", "] } ]"),
        ("valid \n", "valid"),
        ("  \n ", None),
        ("", None),
    ],
)
def test_bbh_direct(text: str, answer: str | None) -> None:
    assert bbh.extract_direct(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" Let's think. So the answer is (C).", "(C)"),
        ("the answer is 3, no. So the answer is 4.\n\nQ: x\nA: So the answer is 5.", "4"),
        ("So the answer is ] ) }.", "] ) }"),
        ("So the answer is apple pear zoo.\n", "apple pear zoo"),
        ("So the answer is: No", "No"),
        ("I cannot tell", None),
        ("So the answer is .", None),
    ],
)
def test_bbh_reasoned(text: str, answer: str | None) -> None:
    assert bbh.extract_cot(text) == answer


@pytest.mark.parametrize(
    ("given", "target", "right"),
    [
        ("(A)", "(A)", True),
        ("A", "(A)", True),
        ("(A) three", "(A)", True),
        ("A: three", "(A)", True),
        ("Apple", "(A)", False),
        ("(B)", "(A)", False),
        ("] }", "] }", True),
        ("]  }", "] }", True),
        ("]}", "] }", False),
        ("yes", "Yes", False),
        ("-50", "50", False),
        (None, "Yes", False),
        ("Monsters, Inc", "Monsters, Inc", True),
    ],
)
def test_bbh_right(given: str | None, target: str, right: bool) -> None:
    assert bbh.is_right(given, target) is right


@pytest.mark.parametrize(
    ("text", "ours", "official"),
    [
        ("The answer is therefore C\n", "C", "C"),
        (" (D)", "D", "D"),
        ("B.", "B", "B"),
        ("answer is (E), because", "E", "E"),
        ("As I see it, B", None, "A"),
        ("A's are right", None, "A"),
        ("The answer is therefore unclear", None, None),
        ("", None, None),
        ("F", None, "F"),
    ],
)
def test_agieval(text: str, ours: str | None, official: str | None) -> None:
    assert agieval.letter(text) == ours
    assert agieval.official_letter(text) == official


def test_agieval_labels() -> None:
    assert agieval.letter("E", "ABCD") is None
    with pytest.raises(InvalidInputError, match="capital letters"):
        agieval.letter("A", "abc")
