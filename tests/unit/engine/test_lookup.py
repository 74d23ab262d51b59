"""The index finds what a plain search finds."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from circius.engine.lookup import LONGEST, LOOKED_AT, Lookup, Match


def _searched(text: Sequence[int]) -> Match | None:
    """The definition of `Lookup.match`: all earlier places, one after the other."""

    def common(place: int) -> int:
        length = 0
        while length < min(place, LONGEST) and text[place - 1 - length] == text[-1 - length]:
            length += 1
        return length

    found = [(common(place), place) for place in range(1, len(text))]
    pairs = [(length, place) for length, place in found if length >= 2][-LOOKED_AT:]
    singles = [(length, place) for length, place in found if length == 1]
    latest = pairs or singles[-1:]
    return Match(*reversed(max(latest))) if latest else None


@settings(max_examples=300)
@given(text=st.lists(st.integers(0, 4), max_size=120), begin=st.integers(0, 120))
def test_every_match_is_that_of_a_plain_search(text: list[int], begin: int) -> None:
    lookup = Lookup(text[:begin])
    assert lookup.match() == _searched(text[:begin])
    for end, token in enumerate(text[begin:], start=min(begin, len(text)) + 1):
        lookup.append(token)
        assert lookup.match() == _searched(text[:end])


@given(text=st.lists(st.integers(0, 3), min_size=2, max_size=60), n_tokens=st.integers(0, 40))
def test_a_continuation_is_what_a_copy_of_the_text_would_be(text: list[int], n_tokens: int) -> None:
    lookup = Lookup(text)
    if (match := lookup.match()) is None:
        return
    copied = list(text)
    for i in range(n_tokens):
        copied.append(copied[match.place + i])
    assert lookup.continuation(match, n_tokens) == copied[len(text) :]


def test_ids_of_any_size_are_told_apart() -> None:
    assert Lookup([1, 2**31, 9, 2, 2**31]).match() == Match(2, 1)
    assert Lookup([1, 2**31, 9, 1, 2**31]).match() == Match(2, 2)


def test_a_frequent_pair_does_not_hide_the_latest_places() -> None:
    text = [1, 2, 3, *[1, 2] * (2 * LOOKED_AT), 3, 1, 2]
    assert Lookup(text).match() == Match(len(text) - 3, 2)
