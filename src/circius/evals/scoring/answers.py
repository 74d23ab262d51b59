"""Short answers in words: where an answer ends, the forms in which two count as the same, and exact match."""

import re
import string
import unicodedata
from collections.abc import Callable, Sequence

from circius.base.errors import InvalidInputError

Form = Callable[[str], str]
"""Turns an answer into what is compared."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_DELETE_PUNCTUATION = str.maketrans("", "", string.punctuation)
_BLANK_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation + "‘’´`", " "))


def cut_answer(text: str) -> str:
    r"""The answer at the start of what a model wrote: its first line, without a dot or comma at the end.

    LLaMA-1's rule (section 3 of its paper: "the first line break, or final dot or comma"). A dot inside stays, so that
    "U.S. Senate" is not cut to "U"; blank lines before the answer are skipped.

    >>> cut_answer(" in the U.S. Senate,\nQ: who ...")
    'in the U.S. Senate'
    """
    lines = text.strip().splitlines()
    return lines[0].rstrip().rstrip(".,").rstrip() if lines else ""


def squad_form(text: str) -> str:
    """Lower case, without ASCII punctuation and English articles, one space between words: SQuAD's form, and QuAC's.

    >>> squad_form("The  Saint-Lawrence River!")
    'saintlawrence river'
    """
    return _without_articles(text.lower().translate(_DELETE_PUNCTUATION))


def llama_form(text: str) -> str:
    """LLaMA-1's form for NaturalQuestions and TriviaQA: case, articles, punctuation and double spaces do not count.

    Its paper says no more than that; SQuAD's order of these steps is taken, as everybody does.
    """
    return squad_form(text)


def nq_form(text: str) -> str:
    """The form of NaturalQuestions' open-domain evaluation: SQuAD's, after Unicode decomposition (NFD)."""
    return squad_form(unicodedata.normalize("NFD", text))


def triviaqa_form(text: str) -> str:
    """The form of TriviaQA's evaluation: punctuation, typographic quotes and underscores become spaces.

    >>> triviaqa_form("Spider-Man’s_Web"), squad_form("Spider-Man's Web")
    ('spider man s web', 'spidermans web')
    """
    return _without_articles(text.replace("_", " ").lower().translate(_BLANK_PUNCTUATION))


def exact_match(answer: str, references: Sequence[str], form: Form = llama_form) -> bool:
    """Whether an answer is one of the references, in a form; an answer of which no form remains is compared as it is.

    The exception matters: "The The" is a band, and its form is empty, as that of no answer at all.

    Raises:
        InvalidInputError: there is no reference.
    """
    if not references:
        raise InvalidInputError("exact match needs at least one reference answer, got none")
    given = form(answer)
    if given:
        return any(form(reference) == given for reference in references)
    plain = " ".join(answer.lower().split())
    return bool(plain) and any(" ".join(reference.lower().split()) == plain for reference in references)


def _without_articles(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", text).split())
