"""When two final answers of maths problems are the same."""

from fractions import Fraction

import pytest

from circius.base.errors import InvalidInputError
from circius.evals.scoring import provers
from circius.evals.scoring.equality import is_equal
from circius.evals.scoring.latex_value import value

SAME = [
    ("0.5", r"\frac12"), ("1/2", r"\frac{1}{2}"), (r"2\frac12", "2.5"), ("3.0", "3"), (r"0.\overline{3}", r"\frac13"),
    (r"0.1\overline{6}", r"\frac16"), (r"\sqrt8", r"2\sqrt{2}"), (r"\frac{1}{\sqrt3}", r"\frac{\sqrt3}{3}"),
    (r"\sqrt[3]{-27}", "-3"), ("5!", "120"), (r"10^{-3}", "0.001"), (r"2^{10}", "1024"), ("1{,}024", "1024"),
    (r"\frac{3\pi}{4}", r"\frac34\pi"), (r"\log_2 8", "3"), ("|-3|", "3"), (r"4^{1/2}", "2"), ("--3", "3"),
    ("3-4i", "-4i+3"), ("i^2", "-1"), ("2x+3", "3+2x"), ("(x-1)(x+1)", "x^2-1"), (r"\frac{x^2-1}{x-1}", "x+1"),
    (r"\sin^2 x+\cos^2 x", "1"), ("x_1+x_2", "x_2+x_1"), ("(1,2)", r"(1, \frac42)"), (r"[0,\infty)", r"[0, \infty)"),
    (r"(-\infty,1)\cup[2,3)", r"[2,3)\cup(-\infty,1)"), (r"\{1,2\}", r"\{2,1\}"), ("1,-2", "-2,1"), ("1,2", r"\{2,1\}"),
    (r"1\pm\sqrt2", r"1-\sqrt2,1+\sqrt2"), ("x<3", "3>x"), (r"1\le x<2", r"2>x\geq 1"), ("x+y=4", "y+x=4"),
    (r"\begin{pmatrix}1/2\\3\end{pmatrix}", r"\begin{pmatrix}0.5\\3\end{pmatrix}"), (r"\text{(C)}", "C"),
    ("evelyn", r"\text{Evelyn}"), ("x=4", "4"), ("-3", "−3"),
]  # fmt: skip

OTHER = [
    ("0.333", r"\frac13"), ("3.14", r"\pi"), ("1", "-1"), ("(1,2)", "(2,1)"), ("[1,2)", "(1,2)"), ("1,2", "12"),
    ("1,1,2", "1,2,2"), ("1,2", "1,2,3"), ("(1,2)", "1,2"), ("x<3", "x>3"), (r"x\le3", "x<3"), ("x+1", "x+2"),
    ("x", "y"), ("listen", "silent"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1&2\end{pmatrix}"), ("2516_8", "2516"),
    (r"\begin{pmatrix}1\end{pmatrix}", r"\begin{vmatrix}1\end{vmatrix}"), ("A", "B"), ("x+y=4", "x+y=5"), ("", ""),
    ("", "1"), (r"\frac10", "1"), (r"\frac10", r"\frac20"), ("1.00000000000001", "1"), (r"1\pm2", "3,1"),
    ("x^2+y^2=4", "4"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same(one: str, other: str) -> None:
    assert is_equal(one, other)
    assert is_equal(other, one)


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_not_the_same(one: str, other: str) -> None:
    assert not is_equal(one, other)
    assert not is_equal(other, one)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    ["9^{9^{9^9}}", "(" * 390, "{" * 5000, "9" * 100_000, "10^{400}!", "1!!!!!!!!!!", "2^{-99999999}",
     r"\sqrt[9999]{2}", "-" * 4000 + "1", "x^" * 150 + "2", r"\frac" * 100, r"\log_0 0", "0^{-1}",
     r"\begin{pmatrix}" * 50, ",".join("1" * 999), "((((" + "1,2" * 90,
     r"\text{" * 400, "=" * 500, "$" * 501, "_" * 300, r"\pm" * 30, "1_{" + "1" * 300, "\\"],
)  # fmt: skip
def test_what_a_model_may_write(text: str) -> None:
    """Neither hangs, nor fails, nor is taken for something else."""
    assert not is_equal(text, "12345")
    assert is_equal(text, text) or not text.strip("$=_")


def test_values_are_exact() -> None:
    assert value("0.1+0.2", Fraction) == Fraction(3, 10)
    assert value(r"\sqrt{\frac{9}{16}}", Fraction) == Fraction(3, 4)
    assert value("2x", lambda name: Fraction(7, 2)) == 7
    assert value("two", Fraction) is None
    assert value(r"\unknown{2}", Fraction) is None
    assert value("", Fraction) is None


def test_a_prover_is_asked_last() -> None:
    asked: list[tuple[str, str]] = []

    def prover(one: str, other: str) -> bool:
        asked.append((one, other))
        return True

    assert is_equal("0.5", "1/2", prover)
    assert asked == []
    assert is_equal(r"\arcsec 2", r"\frac{\pi}{3}", prover)
    assert asked == [(r"\arcsec 2", r"\frac{\pi}{3}")]


def test_a_prover_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provers, "find_spec", lambda name: None)
    with pytest.raises(InvalidInputError, match="math-verify is not installed"):
        provers.math_verify()


def test_long_lists_are_compared_by_their_text_first() -> None:
    """A model that goes round in circles writes hundreds of members; each with each would take minutes."""
    names = [f"x_{n}" for n in range(200)]
    assert is_equal(",".join(names), ",".join(reversed(names)))
    assert not is_equal(",".join(names), ",".join(f"y_{n}" for n in range(200)))
    assert is_equal(r"0.5, 2, 7", r"7, \frac12, 2")
    assert not is_equal("1, 1, 2", "1, 2, 2")
