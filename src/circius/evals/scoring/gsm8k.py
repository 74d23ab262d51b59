"""GSM8K: the number that a worked answer ends with."""

import re

from circius.base.errors import InvalidInputError

_STATED = re.compile(r"the answer is:?\s*(-?[$0-9.,]+)", re.IGNORECASE)
_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?|-?\$?\.\d+")
_GOLD = re.compile(r"####\s*(\S+)\s*$")


def extract(text: str) -> str | None:
    """The number after "The answer is", or else the last number in the text; None where there is none.

    Dollar signs, commas, a final dot and zeros after the point are gone, so that "$1,200.00." is "1200". Where a model
    says "The answer is" more than once, the first counts: what follows is the next question of its own making.

    >>> extract("16 - 3 - 4 = 9, and 9 * $2 = $18. The answer is $18.")
    '18'
    """
    stated = _STATED.search(text)
    if stated is not None:
        number = plain_number(stated[1])
        if number is not None:
            return number
    found = _NUMBER.findall(text)
    return plain_number(found[-1]) if found else None


def gold(answer: str) -> str:
    """The number behind the four hashes at the end of a GSM8K answer.

    Raises:
        InvalidInputError: the answer has none.
    """
    found = _GOLD.search(answer)
    number = plain_number(found[1]) if found else None
    if number is None:
        raise InvalidInputError(f"a GSM8K answer ends in '#### NUMBER', got {answer[-80:]!r}")
    return number


def plain_number(text: str) -> str | None:
    """A number as plain digits: no `$`, no commas, no final dot, no needless zeros; None if it is no number.

    >>> plain_number("-$1,050.50."), plain_number("007"), plain_number("-0.0"), plain_number("1.2.3")
    ('-1050.5', '7', '0', None)
    """
    bare = text.strip().replace("$", "").replace(",", "").rstrip(".")
    if not re.fullmatch(r"-?(\d+(\.\d*)?|\.\d+)", bare, re.ASCII):
        return None
    sign, digits = ("-", bare[1:]) if bare.startswith("-") else ("", bare)
    whole, _, fraction = digits.partition(".")
    whole, fraction = whole.lstrip("0") or "0", fraction.rstrip("0")
    number = f"{whole}.{fraction}" if fraction else whole
    return number if number == "0" else sign + number
