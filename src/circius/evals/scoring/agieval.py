"""AGIEval: the letter in what a model wrote."""

import re

from circius.base.errors import InvalidInputError

_OFFICIAL_STATED = re.compile(r"answer is .*?([A-G])")
_OFFICIAL_ANY = re.compile(r"[A-F]")


def official_letter(text: str) -> str | None:
    """The letter by the rule of AGIEval's own code for single answers: the first of A to G after "answer is", else the
    first of A to F anywhere; None where there is none.

    It takes any capital for an answer, also the one of "As I said": for comparison only.
    """
    stated = _OFFICIAL_STATED.search(text)
    if stated is not None:
        return stated[1]
    found = _OFFICIAL_ANY.search(text)
    return found[0] if found else None


def letter(text: str, labels: str = "ABCDE") -> str | None:
    """The letter that stands alone, in brackets or not: after the first "answer is", else at the start of the text.

    None where there is no such letter, or only one that is none of `labels`.

    >>> letter("The answer is therefore (C)."), letter(" B"), letter("As I see it, D is wrong"), letter("E", "ABCD")
    ('C', 'B', None, None)

    Raises:
        InvalidInputError: no labels, or labels that are not capital letters.
    """
    if not re.fullmatch("[A-Z]+", labels):
        raise InvalidInputError(f"labels must be capital letters such as 'ABCD', got {labels!r}")
    alone = rf"\(?([{labels}])(?![\w'’])"
    stated = re.search(rf"\banswer is(?:\s+therefore)?:?\s*{alone}", text)
    found = stated or re.match(rf"\s*{alone}", text)
    return found[1] if found else None
