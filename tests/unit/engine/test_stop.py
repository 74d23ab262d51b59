"""Stop texts across the borders of pieces."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from circius.engine.stop import StopFinder

LETTERS = st.text("ab", max_size=20)
STOPS = st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3)


def _run(finder: StopFinder, pieces: list[str]) -> tuple[str, str | None]:
    shown = "".join(finder.push(piece) for piece in pieces)
    return (shown if finder.found else shown + finder.flush()), finder.found


def _obvious(text: str, stops: list[str], *, include: bool) -> tuple[str, str | None]:
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            stop = max(complete, key=len)
            return text[: end if include else end - len(stop)], stop
    return text, None


@given(text=LETTERS, stops=STOPS, cuts=st.lists(st.integers(0, 20)), include=st.booleans())
def test_any_split_gives_what_one_look_at_each_character_gives(
    text: str, stops: list[str], cuts: list[int], include: bool
) -> None:
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(borders)]
    assert _run(StopFinder(stops, include=include), pieces) == _obvious(text, stops, include=include)


@given(text=LETTERS, stops=STOPS)
def test_no_part_of_a_stop_text_is_ever_shown(text: str, stops: list[str]) -> None:
    finder = StopFinder(stops)
    shown = ""
    for letter in text:
        shown += finder.push(letter)
        assert not any(stop in shown for stop in stops)
        if finder.found is not None:
            assert text.startswith(shown + finder.found)
            return


def test_text_is_held_back_only_while_it_may_become_a_stop_text() -> None:
    finder = StopFinder(["</s>"])
    assert finder.push("a<") == "a"
    assert finder.push("/s") == ""
    assert finder.push("b") == "</sb"
    assert finder.flush() == ""


def test_without_stop_texts_everything_is_shown_at_once() -> None:
    assert StopFinder([]).push("anything") == "anything"
