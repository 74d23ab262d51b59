"""Short answers: where they end, and when two are the same."""

import pytest

from circius.base.errors import InvalidInputError
from circius.evals.scoring.answers import (
    Form,
    cut_answer,
    exact_match,
    llama_form,
    nq_form,
    squad_form,
    triviaqa_form,
)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" Paris\nQ: next", "Paris"),
        (" in the U.S.\n", "in the U.S"),
        ("\n\n 1969, \n", "1969"),
        (" 3.5 million", "3.5 million"),
        ("red, green and blue.", "red, green and blue"),
        ("", ""),
        ("\n", ""),
        ("one\r\ntwo", "one"),
    ],
)
def test_where_an_answer_ends(text: str, answer: str) -> None:
    assert cut_answer(text) == answer


@pytest.mark.parametrize(
    ("form", "text", "wanted"),
    [
        (squad_form, "The Beatles' An-other  A song", "beatles another song"),
        (llama_form, "The U.S. Senate", "us senate"),
        (squad_form, "theatre and another", "theatre and another"),
        (nq_form, "Pel\u00e9", "pele\u0301"),
        (triviaqa_form, "Spider-Man’s_Web", "spider man s web"),
        (triviaqa_form, "“A” `b`", "“ ” b"),
    ],
)
def test_forms(form: Form, text: str, wanted: str) -> None:
    assert form(text) == wanted


def test_unicode_is_decomposed_for_nq_alone() -> None:
    composed, decomposed = "Pel\u00e9", "Pele\u0301"
    assert exact_match(composed, [decomposed], nq_form)
    assert not exact_match(composed, [decomposed], squad_form)


def test_any_reference_counts() -> None:
    assert exact_match("the 14 December 1972.", ["December 1972", "14 December 1972"])
    assert not exact_match("December", ["December 1972"])


def test_answers_without_a_form_are_compared_as_they_are() -> None:
    assert exact_match("The The", ["the the"])
    assert not exact_match("", ["The"])
    assert not exact_match("a", ["The"])
    assert exact_match("!", ["!"])


def test_no_reference() -> None:
    with pytest.raises(InvalidInputError, match="at least one reference"):
        exact_match("x", [])
