"""One form for final answers: what goes, and what must not."""

import pytest

from circius.evals.scoring.minerva import normalise, split_outside


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        # what Minerva's own examples do
        (r"\$18.90", "18.90"),
        (r"90^\circ", "90"),
        (r"x = 5", "5"),
        (r"\text{The answer is }5\text{ square inches}", "answeris5"),
        (r"\frac12", r"\frac{1}{2}"),
        (r"\frac ab", r"\frac{a}{b}"),
        (r"\sqrt2", r"\sqrt{2}"),
        (r"100,000", "100000"),
        (r"12\%", "12"),
        (r"\mbox{no}", "no"),
        # spelling
        (r"\dfrac{3}{4}", r"\frac{3}{4}"),
        (r"\left( 1, \, 2 \right]", "(1,2]"),
        (r"\mathbf{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"3 \text{ and } -2", "3,-2"),
        (r"3\text{ or }4", "3,4"),
        (r".5", "0.5"),
        (r"3.00", "3"),
        (r"10\text{ m}", "10"),
        (r"5\text{ cm}^2", "5"),
        (r"x \in [1,2]", "[1,2]"),
        (r"f(x) = 2x+1", "2x+1"),
        (r"x=3, y=4", "3,4"),
        (r"(x,y) = (1,2)", "(1,2)"),
        (r"2 + 3 = 5", "5"),
        (r"$4$.", "4"),
        (r"the number $17$ of them", "17"),
        (r"a \leq b", r"a\le b"),
        (r"−3", "-3"),
        # what must stay as it is
        (r"1,2", "1,2"),
        (r"(12,102)", "(12,102)"),
        (r"0.\overline{3}", r"0.\overline{3}"),
        (r"x^2+y^2=4", "x^2+y^2=4"),
        (r"(-\infty, 3)", r"(-\infty,3)"),
        (r"\text{left}", "left"),
        (r"\pi r^2", r"\pi r^2"),
        (r"a+2b", "a+2b"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
        (r"2516_8", "2516_8"),
        (r"\text{Evelyn}", "Evelyn"),
        ("", ""),
        ("$", ""),
        (r"\text{unclosed", "unclosed"),
    ],
)
def test_forms(answer: str, form: str) -> None:
    assert normalise(answer) == form
    assert normalise(form) == form


def test_splitting_minds_brackets() -> None:
    assert split_outside("a,(b,c),[d,e)", ",") == ["a", "(b,c)", "[d,e)"]
    assert split_outside("", ",") == [""]
    assert split_outside(")a,b", ",") == [")a", "b"]
