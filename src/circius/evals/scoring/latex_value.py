r"""What a piece of simple LaTeX is worth: a small parser, and exact arithmetic wherever the numbers are rational.

It knows numbers (mixed and repeating ones too), + - * / ^ !, \frac, \sqrt, absolute values, \pi, e, i, a few functions,
and variables. Anything else is refused with None, and then only the text can decide. It runs on what a model wrote: no
power is too high for it to refuse, and no nesting too deep.
"""

import cmath
import math
import re
from collections.abc import Callable, Sequence
from fractions import Fraction

from circius.evals.scoring.exact import (
    NotDefinedError,
    Value,
    add,
    divide,
    factorial,
    multiply,
    power,
    root,
    rough,
)

Place = Callable[[str], Fraction]
"""Gives a variable its value."""

_MAX_CHARACTERS = 400
_TOKEN = re.compile(r"\d+(?:\.\d+|\.(?=\\overline))?|\\[a-zA-Z]+|\\.|[a-zA-Z]|\S")
_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{3,}")  # a product of variables it might be, but then "angle" is "angel"
_TIMES = frozenset({"*", "\\cdot", "\\times"})
_OVER = frozenset({"/", "\\div"})
_ENDS = frozenset({")", "}", "]", "+", "-", "|", "!", "^", "_", ",", *_TIMES, *_OVER})
_FUNCTIONS: dict[str, Callable[[complex], complex]] = {
    "\\sin": cmath.sin, "\\cos": cmath.cos, "\\tan": cmath.tan, "\\ln": cmath.log, "\\exp": cmath.exp,
    "\\arcsin": cmath.asin, "\\arccos": cmath.acos, "\\arctan": cmath.atan,
    "\\sec": lambda x: 1 / cmath.cos(x), "\\csc": lambda x: 1 / cmath.sin(x), "\\cot": lambda x: 1 / cmath.tan(x),
}  # fmt: skip


class _UnknownError(Exception):
    """The text is none of the simple LaTeX that is understood."""


def value(text: str, place: Place) -> Value | None:
    r"""What `text` is worth where `place` gives the variables their values; None where it is not understood.

    >>> value(r"1\frac{1}{2}", Fraction), value("0.1+0.2", Fraction), value(r"\sqrt{x", Fraction)
    (Fraction(3, 2), Fraction(3, 10), None)
    """
    if len(text) > _MAX_CHARACTERS or _WORD.search(text):
        return None
    try:
        reader = _Reader(_TOKEN.findall(text), place)
        worth = reader.sum()
        if reader.token is not None:
            return None
    except (_UnknownError, NotDefinedError, ArithmeticError, ValueError, RecursionError):
        return None
    return worth if isinstance(worth, Fraction) or cmath.isfinite(worth) else None


class _Reader:
    """Reads tokens from left to right and computes as it goes; `token` is the next one."""

    def __init__(self, tokens: Sequence[str], place: Place) -> None:
        self._tokens = tokens
        self._next = 0
        self._place = place
        self._open_bars = 0

    @property
    def token(self) -> str | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def sum(self) -> Value:
        """Terms with signs between them."""
        total: Value = Fraction(0)
        sign = self._signs()
        while True:
            term = self._product()
            total = add(total, term if sign > 0 else -term)
            if self.token not in ("+", "-"):
                return total
            sign = self._signs()

    def _signs(self) -> int:
        sign = 1
        while self.token in ("+", "-"):
            sign *= 1 if self._take() == "+" else -1
        return sign

    def _product(self) -> Value:
        product = self._factor()
        while (token := self.token) is not None:
            if token in _TIMES or token in _OVER:
                self._take()
                sign = self._signs()
                factor = self._factor()
                factor = factor if sign > 0 else -factor
                product = divide(product, factor) if token in _OVER else multiply(product, factor)
            elif token in _ENDS:
                break
            else:
                product = multiply(product, self._factor())
        return product

    def _factor(self) -> Value:
        base = self._atom()
        while self.token in ("^", "!"):
            base = power(base, self._argument()) if self._take() == "^" else factorial(base)
        return base

    def _atom(self) -> Value:
        token = self._take()
        if token[0].isdecimal():
            return self._number(token)
        if token in ("(", "{", "["):
            return self._closed({"(": ")", "{": "}", "[": "]"}[token])
        if token == "|":
            self._open_bars += 1
            worth = self._closed("|")
            return abs(worth) if isinstance(worth, Fraction) else complex(abs(worth))
        if token == "\\frac":
            above = self._argument()
            return divide(above, self._argument())
        if token == "\\sqrt":
            return self._root()
        if token == "\\log":
            return self._logarithm()
        if token in _FUNCTIONS:
            return self._function(_FUNCTIONS[token])
        return self._symbol(token)

    def _number(self, token: str) -> Value:
        if "." in token and self.token == "\\overline":
            return Fraction(token.rstrip(".")) + self._repeating(len(token.partition(".")[2]))
        number = Fraction(token)
        if "." not in token and self.token == "\\frac":
            rest = self._proper_fraction()
            return number if rest is None else number + rest  # 2\frac{1}{2} is two and a half
        return number

    def _repeating(self, n_before: int) -> Fraction:
        self._take()
        digits = "".join(self._braced_digits())
        return Fraction(int(digits), (10 ** len(digits) - 1) * 10**n_before)

    def _proper_fraction(self) -> Fraction | None:
        r"""The fraction of a mixed number, if plain digits make a proper one; else nothing is read."""
        match self._tokens[self._next : self._next + 7]:
            case ["\\frac", "{", above, "}", "{", below, "}"] if above.isdecimal() and below.isdecimal():
                if 0 < int(above) < int(below):
                    self._next += 7
                    return Fraction(int(above), int(below))
        return None

    def _braced_digits(self) -> list[str]:
        digits = []
        self._expect("{")
        while (token := self._take()) != "}":
            if not token.isdecimal():
                raise _UnknownError
            digits.append(token)
        if not digits:
            raise _UnknownError
        return digits

    def _root(self) -> Value:
        degree: Value = Fraction(2)
        if self.token == "[":
            self._take()
            degree = self._closed("]")
        return root(self._argument(), degree)

    def _logarithm(self) -> Value:
        base: Value = Fraction(10)
        if self.token == "_":
            self._take()
            base = self._argument()
        return self._function(lambda x: cmath.log(x) / cmath.log(rough(base)))

    def _function(self, function: Callable[[complex], complex]) -> Value:
        exponent = self._argument() if self.token == "^" and self._take() else None
        worth = function(rough(self._factor()))
        return worth if exponent is None else power(worth, exponent)

    def _symbol(self, token: str) -> Value:
        constants: dict[str, complex] = {"\\pi": math.pi, "e": math.e, "i": 1j}
        if token in constants:
            return constants[token]
        is_greek = token in ("\\alpha", "\\beta", "\\theta", "\\lambda", "\\mu", "\\phi", "\\omega", "\\tau")
        if not is_greek and not (len(token) == 1 and token.isalpha() and token.isascii()):
            raise _UnknownError
        if self.token == "_":
            self._take()
            index = self._take()
            return self._place(f"{token}_{index if index != '{' else ''.join(self._index())}")
        return self._place(token)

    def _index(self) -> list[str]:
        parts = []
        while (token := self._take()) != "}":
            parts.append(token)
        return parts

    def _argument(self) -> Value:
        """What a command or a power takes: a group in braces, or one digit or symbol."""
        token = self.token
        if token is not None and token.isdecimal() and len(token) > 1:  # \frac12: one digit each
            self._tokens = [*self._tokens[: self._next], *token, *self._tokens[self._next + 1 :]]
        if self.token == "-":
            raise _UnknownError
        if token is not None and token[0].isdecimal():
            return Fraction(self._take())
        return self._atom()

    def _closed(self, end: str) -> Value:
        worth = self.sum()
        self._expect(end)
        return worth

    def _expect(self, wanted: str) -> None:
        if self._take() != wanted:
            raise _UnknownError

    def _take(self) -> str:
        token = self.token
        if token is None:
            raise _UnknownError
        self._next += 1
        return token
