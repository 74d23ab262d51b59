r"""Whether two final answers of maths problems are the same, by text first and then by what they are worth.

Nothing here depends on what else is installed, so a score is the same everywhere. sympy's reach (equality of any
formulas) is there for who asks for it by name: `provers.math_verify`.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from hashlib import sha256

from circius.evals.scoring.exact import are_near
from circius.evals.scoring.latex_value import value
from circius.evals.scoring.minerva import normalise, split_outside

Same = Callable[[str, str], bool]

_MAX_CHARACTERS = 2000  # no answer is that long; what is, is compared as it stands
_MAX_UNLIKE = 32  # members of lists that are not the same text; comparing each with each takes the square of it
_POINTS = ("one", "two", "three")
_RELATIONS = re.compile(r"(\\le(?![a-zA-Z])|\\ge(?![a-zA-Z])|\\ne(?![a-zA-Z])|<=|>=|!=|<|>|=)")
_MIRRORED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le", "\\ne": "\\ne", "=": "="}
_SPELLED = {"<=": "\\le", ">=": "\\ge", "!=": "\\ne"}
_MATRIX = re.compile(r"\\begin\{([pbvBV]?matrix)\}(.*)\\end\{\1\}", re.DOTALL)
_CHOICE = re.compile(r"\(?([A-Z])\)?")


def is_equal(given: str, wanted: str, prover: Same | None = None) -> bool:
    r"""Whether two final answers are the same; both are put into Minerva's form first.

    Tuples, intervals, matrices and inequalities are compared part by part; sets, unions and plain lists in any order.
    Numbers are compared exactly where they are rational ("0.5" is "\frac{1}{2}", "0.333" is no third), else to one part
    in 10^10; formulas by their values at three fixed points, so that a factored polynomial is equal to its expanded
    form, as it is for sympy. Of lists in any order at most 32 members may differ in their text.

    prover: asked last, about what is not decided by then; see `provers`.

    >>> is_equal(r"x = \frac12", "0.5"), is_equal("(1,2)", "(2,1)"), is_equal("2, 1", "1, 2")
    (True, False, True)
    """
    if max(len(given), len(wanted)) > _MAX_CHARACTERS:
        return given.strip() == wanted.strip()
    one, other = normalise(given), normalise(wanted)
    if not one or not other:
        return False
    if _same(one, other):
        return True
    return prover is not None and prover(given, wanted)


def _same(one: str, other: str) -> bool:
    if _as_text(one) == _as_text(other):
        return True
    return bool(one and other) and any(compare(one, other) for compare in _COMPARISONS)


def _as_text(text: str) -> str:
    """A text for comparison: a choice's letter without brackets, and a word in any case."""
    choice = _CHOICE.fullmatch(text)
    if choice is not None:
        return choice[1]
    return text.lower() if len(text) > 1 and text.isalpha() else text


def _same_list(one: str, other: str) -> bool:
    """Lists and sets, in any order; a plus-minus stands for two values."""
    return _match_any_order(_members(one), _members(other))


def _members(text: str) -> list[str]:
    inside = text[2:-2] if text.startswith("\\{") and text.endswith("\\}") else text
    members = []
    for part in split_outside(inside, ","):
        members += [part.replace("\\pm", "+"), part.replace("\\pm", "-")] if "\\pm" in part else [part]
    return members


def _same_union(one: str, other: str) -> bool:
    return _match_any_order(split_outside(one, "\\cup"), split_outside(other, "\\cup"))


def _match_any_order(ones: Sequence[str], others: Sequence[str]) -> bool:
    if len(ones) != len(others) or len(ones) < 2:
        return False
    same = Counter(ones) & Counter(others)
    left = list((Counter(others) - same).elements())
    if len(left) > _MAX_UNLIKE:
        return False
    for one in (Counter(ones) - same).elements():
        partner = next((other for other in left if _same(one, other)), None)
        if partner is None:
            return False
        left.remove(partner)
    return True


def _same_tuple(one: str, other: str) -> bool:
    """Tuples and intervals: the same brackets, the same parts in the same order."""
    if one[0] not in "([" or one[-1] not in ")]" or (one[0], one[-1]) != (other[0], other[-1]):
        return False
    parts, other_parts = split_outside(one[1:-1], ","), split_outside(other[1:-1], ",")
    return len(parts) > 1 and _match_in_order(parts, other_parts)


def _same_matrix(one: str, other: str) -> bool:
    found, other_found = _MATRIX.fullmatch(one), _MATRIX.fullmatch(other)
    if found is None or other_found is None or ("v" in found[1].lower()) != ("v" in other_found[1].lower()):
        return False
    rows, other_rows = ([row.split("&") for row in matrix[2].split("\\\\") if row] for matrix in (found, other_found))
    return len(rows) == len(other_rows) and all(map(_match_in_order, rows, other_rows))


def _same_relation(one: str, other: str) -> bool:
    """Equations and inequalities, also read from right to left."""
    parts, other_parts = ([_SPELLED.get(part, part) for part in _RELATIONS.split(text)] for text in (one, other))
    if len(parts) != len(other_parts) or len(parts) < 3:
        return False
    mirrored = [_MIRRORED.get(part, part) for part in reversed(other_parts)]
    return any(
        parts[1::2] == candidate[1::2] and _match_in_order(parts[::2], candidate[::2])
        for candidate in (other_parts, mirrored)
    )


def _match_in_order(ones: Sequence[str], others: Sequence[str]) -> bool:
    return len(ones) == len(others) and all(map(_same, ones, others))


def _same_value(one: str, other: str) -> bool:
    for point in _POINTS:
        worth, other_worth = (value(text, lambda name: _coordinate(point, name)) for text in (one, other))  # noqa: B023
        if worth is None or other_worth is None or not are_near(worth, other_worth):
            return False
    return True


def _coordinate(point: str, variable: str) -> Fraction:
    """A rational number between 1 and 3 that belongs to a variable at a point, the same in every process."""
    digest = sha256(f"{point} {variable}".encode()).digest()
    return 1 + Fraction(int.from_bytes(digest[:2], "big"), 32749)


_COMPARISONS = (_same_value, _same_tuple, _same_matrix, _same_union, _same_list, _same_relation)
