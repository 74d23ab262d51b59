"""Turns from lines: fences, and what is not a fence."""

import pytest

from circius.cli.chat_input import read_turn, unfenced


def turns(*lines: str) -> list[str]:
    """All turns that these lines make."""
    left = iter(lines)
    found = []
    while (turn := read_turn(lambda: next(left, None))) is not None:
        found.append(turn)
    return found


def test_each_line_is_a_turn() -> None:
    assert turns("one", "", "two") == ["one", "", "two"]


@pytest.mark.parametrize(
    ("lines", "turn"),
    [
        (['"""', "one", "", "two", '"""'], "one\n\ntwo"),
        (['"""one', 'two"""'], "one\ntwo"),
        (['"""one"""'], "one"),
        (['"""', "  indented", '"""  '], "  indented"),
        (['"""', "cut off"], "cut off"),
    ],
)
def test_a_block_is_one_turn(lines: list[str], turn: str) -> None:
    assert turns(*lines) == [turn]
    assert unfenced("\n".join(lines)) == turn


def test_a_turn_follows_a_block() -> None:
    assert turns('"""a', 'b"""', "c") == ["a\nb", "c"]


def test_several_lines_need_no_fence_at_a_terminal() -> None:
    assert unfenced("one\ntwo") == "one\ntwo"
