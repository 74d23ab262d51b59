"""Programs put together from completions."""

import pytest

from circius.base.errors import InvalidInputError
from circius.evals.scoring.code import (
    HUMANEVAL_STOPS,
    MBPP_STOPS,
    cut,
    humaneval_program,
    mbpp_program,
)


@pytest.mark.parametrize("stop", HUMANEVAL_STOPS)
def test_humaneval_ends_with_the_next_thing(stop: str) -> None:
    assert cut(f"    return 1{stop} more{stop}", HUMANEVAL_STOPS) == "    return 1"
    assert (
        cut("    if x:\n        return 1\n    # note\n", HUMANEVAL_STOPS) == "    if x:\n        return 1\n    # note\n"
    )


def test_programs_decide() -> None:
    program = humaneval_program(
        "def double(x):\n", "    return 2 * x\ndef other(): pass", "def check(f):\n    assert f(2) == 4", "double"
    )
    exec(program, {})
    assert "other" not in program
    with pytest.raises(AssertionError):
        exec(program.replace("2 * x", "3 * x"), {})
    with pytest.raises(InvalidInputError, match="entry_point"):
        humaneval_program("", "", "", "f(); g")


def test_mbpp() -> None:
    program = mbpp_program(
        "class Node: pass\n[DONE]\n[BEGIN]", ["assert isinstance(made, Node)"], ["import math", "made = Node()"]
    )
    exec(program, {})
    assert MBPP_STOPS[0] not in program
    with pytest.raises(InvalidInputError, match="without tests"):
        mbpp_program("x = 1", [])
