"""Arithmetic that is exact as long as numbers are rational, and in doubles (complex ones) from there on."""

import cmath
import math
from fractions import Fraction

Value = Fraction | complex

_MAX_BITS = 20_000
_MAX_FACTORIAL = 200


class NotDefinedError(Exception):
    """An operation has no value here, or one that is too large to be worked out."""


def are_near(one: Value, other: Value) -> bool:
    """Whether two values are the same: exactly if both are rational, else to one part in 10^10."""
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one == other
    try:
        return cmath.isclose(rough(one), rough(other), rel_tol=1e-10, abs_tol=1e-12)
    except OverflowError:
        return False


def rough(worth: Value) -> complex:
    """The value as a complex number."""
    return complex(float(worth)) if isinstance(worth, Fraction) else worth


def add(one: Value, other: Value) -> Value:
    """The sum."""
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one + other
    return rough(one) + rough(other)


def multiply(one: Value, other: Value) -> Value:
    """The product."""
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one * other
    return rough(one) * rough(other)


def divide(one: Value, other: Value) -> Value:
    """The quotient; division by nothing is an ArithmeticError."""
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one / other
    return rough(one) / rough(other)


def power(base: Value, exponent: Value) -> Value:
    """The power, the principal one where there are several."""
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1:
        n_bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if n_bits * abs(exponent.numerator) > _MAX_BITS:
            raise NotDefinedError
        return Fraction(base**exponent.numerator)
    if isinstance(exponent, Fraction) and isinstance(base, Fraction) and base >= 0:
        return root(power(base, Fraction(exponent.numerator)), Fraction(exponent.denominator))
    return rough(base) ** rough(exponent)


def root(worth: Value, degree: Value) -> Value:
    """The root: exact where it is rational, and real where an odd root of a negative number is asked for."""
    if not isinstance(degree, Fraction) or degree.denominator != 1 or not 1 <= degree <= _MAX_FACTORIAL:
        raise NotDefinedError
    if not isinstance(worth, Fraction):
        return worth ** (1 / int(degree))
    if worth < 0 and degree % 2:
        return -root(-worth, degree)
    if worth < 0:
        return 1j * rough(root(-worth, degree)) if degree == 2 else rough(worth) ** (1 / int(degree))
    above, below = (_whole_root(part, int(degree)) for part in (worth.numerator, worth.denominator))
    return Fraction(above, below) if above is not None and below is not None else rough(worth) ** (1 / int(degree))


def factorial(worth: Value) -> Value:
    """The factorial of a whole number, no larger than 200."""
    if not isinstance(worth, Fraction) or worth.denominator != 1 or not 0 <= worth <= _MAX_FACTORIAL:
        raise NotDefinedError
    return Fraction(math.factorial(worth.numerator))


def _whole_root(number: int, degree: int) -> int | None:
    """The whole number whose power this is, if there is one and it is not too large to be found in doubles."""
    if degree == 2:
        whole = math.isqrt(number)
    else:
        if number.bit_length() > 900:
            return None
        whole = round(number ** (1 / degree))
    return whole if whole**degree == number else None
