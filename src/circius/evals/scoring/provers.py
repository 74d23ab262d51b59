"""Equality of formulas by other people's algebra, for who asks for it by name."""

from importlib.util import find_spec

from circius.base.errors import InvalidInputError
from circius.evals.scoring.equality import Same


def math_verify() -> Same:
    """math-verify's judgement, for `is_equal(..., prover=...)`: sympy behind a parser of LaTeX.

    It is slower, and its answers change with its version: say so beside a score. Its own time limits need the main
    thread, so call what this returns from there.

    Raises:
        InvalidInputError: the package is not installed.
    """
    if find_spec("math_verify") is None:
        raise InvalidInputError("math-verify is not installed: `pip install math-verify[antlr4_13_2]`, or go without")
    from math_verify import parse, verify

    def is_same(given: str, wanted: str) -> bool:
        return bool(verify(parse(f"${wanted}$"), parse(f"${given}$")))

    return is_same
