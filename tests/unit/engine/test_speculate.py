"""How many tokens to draft: by what was right lately, and by what steps took lately."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circius.engine.lookup import LONGEST
from circius.engine.speculate import HitRates, Speculator, StepTimes, draft_lengths

FREE = {1: 1.0, 2: 1.0, 5: 1.0, 9: 1.0}
PRICELESS = {n: float(n) for n in range(1, 10)}


def _speculator(text: list[int], times: dict[int, float], *, n_most: int = 8, n_rows: int = 1) -> Speculator:
    """One that has measured steps over so many tokens."""
    speculator = Speculator([text] * n_rows, n_most=n_most)
    for n_tokens, seconds in times.items():
        speculator.timed(n_rows, n_tokens, seconds)
    return speculator


def test_nothing_is_drafted_before_a_plain_step_was_measured() -> None:
    speculator = Speculator([[1, 2, 3, 4] * 5], n_most=8)
    speculator.took([0], [[1]])
    assert speculator.drafts([0], [8]) == [[]]
    speculator.timed(1, 1, 0.01)
    assert speculator.drafts([0], [8])[0][:2] == [2, 3]


def test_a_draft_continues_the_text_that_came_before_and_fits_its_room() -> None:
    for room, expected in ((8, [2, 3, 4, 1, 2, 3, 4, 1]), (3, [2, 3, 4]), (0, [])):
        speculator = _speculator([1, 2, 3, 4] * 5, FREE)
        speculator.took([0], [[1]])
        assert speculator.drafts([0], [room]) == [expected]


def test_a_new_word_has_no_draft() -> None:
    speculator = _speculator([1, 2, 3], FREE)
    speculator.took([0], [[9]])
    assert speculator.drafts([0], [8]) == [[]]


def test_drafts_are_not_longer_than_asked_for_and_none_at_all_at_zero() -> None:
    for n_most in (0, 1, 3):
        speculator = _speculator([1, 2, 3, 4] * 5, FREE, n_most=n_most)
        speculator.took([0], [[1]])
        assert [len(draft) for draft in speculator.drafts([0], [8])] == [n_most]


def test_where_a_longer_step_takes_as_much_longer_nothing_is_drafted() -> None:
    speculator = _speculator([1, 2, 3, 4] * 5, PRICELESS)
    speculator.took([0], [[1]])
    assert speculator.drafts([0], [8]) == [[]]


def test_drafts_that_turn_out_wrong_grow_short_and_come_back_with_hits_that_nobody_drafted() -> None:
    times = {1: 1.0, 2: 1.3, 9: 2.0}
    speculator = _speculator([], times)
    text = iter(range(100, 10_000))

    def repeat(pair: tuple[int, int], following: int) -> None:
        speculator.took([0], [[*pair, following]])

    for _ in range(40):
        repeat((1, 2), next(text))
    speculator.took([0], [[1, 2]])
    speculator.timed(1, 1, 1.0)
    assert speculator.drafts([0], [8]) == [[]]
    speculator.took([0], [[3]])
    for _ in range(40):
        repeat((1, 2), 3)
    speculator.took([0], [[1, 2]])
    speculator.timed(1, 1, 1.0)
    assert speculator.drafts([0], [8])[0][:1] == [3]


def test_a_plain_step_is_measured_again_from_time_to_time() -> None:
    speculator = _speculator([1, 2, 3, 4] * 5, FREE)
    speculator.took([0], [[1]])
    n_drafted = 0
    while speculator.drafts([0], [8]) != [[]]:
        n_drafted += 1
        assert n_drafted < 200
        speculator.timed(1, 9, 1.0)
    speculator.timed(1, 1, 1.0)
    assert speculator.drafts([0], [8]) != [[]]


def test_each_row_has_a_text_of_its_own() -> None:
    speculator = Speculator([[1, 2, 3, 1, 2, 3, 1], [7, 8, 9, 7, 8, 9, 7], [5]], n_most=2)
    speculator.took([0, 1, 2], [[2], [8], [6]])
    speculator.timed(2, 2, 1.0)
    speculator.timed(2, 6, 1.0)
    assert speculator.drafts([0, 2], [8, 8]) == [[3, 1], []]
    assert speculator.drafts([1, 2], [8, 8]) == [[9, 7], []]


def test_rates_follow_what_happened_lately_for_each_length_apart() -> None:
    rates = HitRates()
    before = rates.chances(2, 1)
    for _ in range(100):
        rates.note(5, hit=True)
    assert rates.chances(2, 1) == before
    assert rates.chances(5, 1)[0] > 0.98
    for _ in range(100):
        rates.note(5, hit=False)
    assert rates.chances(5, 1)[0] < 0.02


def test_the_chance_of_a_draft_grows_with_the_match_and_falls_with_each_token() -> None:
    rates = HitRates()
    chances = rates.chances(LONGEST, 5)
    assert chances == sorted(chances, reverse=True)
    assert chances[0] > rates.chances(1, 1)[0]
    assert chances[1] == pytest.approx(chances[0] ** 2)


@given(st.dictionaries(st.integers(1, 30), st.floats(1e-3, 10), min_size=1), st.integers(1, 40))
def test_estimates_never_fall_with_more_tokens_nor_pass_a_measurement(times: dict[int, float], largest: int) -> None:
    measured = StepTimes()
    for n_tokens, seconds in times.items():
        measured.note(n_tokens, seconds)
    found = measured.estimate(largest)
    assert len(found) > largest
    assert found == pytest.approx(sorted(found))
    assert all(found[n] <= seconds * (1 + 1e-9) for n, seconds in times.items() if n < len(found))


def test_one_slow_step_changes_nothing_and_old_ones_are_forgotten() -> None:
    times = StepTimes()
    for seconds in (1.0, 1.0, 9.0):
        times.note(1, seconds)
    times.note(4, 7.0)
    assert times.estimate(1)[1] == 1.0
    for _ in range(300):
        times.note(1, 2.0)
    assert times.age(4) is None
    assert times.estimate(4)[4] < 3.0


@given(
    st.lists(st.lists(st.floats(0.01, 1), max_size=4), min_size=1, max_size=3),
    st.lists(st.floats(0, 0.5), min_size=16, max_size=16),
)
def test_draft_lengths_are_the_best_of_all(chances: list[list[float]], slopes: list[float]) -> None:
    """Among all numbers of drafted tokens, the likeliest first; a plain step where nothing gains by 3 percent."""
    chances = [sorted(own, reverse=True) for own in chances]
    seconds = [1.0 + sum(slopes[:n]) for n in range(16)]
    lengths = draft_lengths(chances, seconds)
    n_rows = len(chances)

    def rate(n_drafted: int) -> float:
        expected = n_rows + sum(sorted((c for own in chances for c in own), reverse=True)[:n_drafted])
        return expected / seconds[n_rows + n_drafted]

    best = max(rate(n) for n in range(sum(map(len, chances)) + 1))
    if best > rate(0) * 1.03:
        assert rate(sum(lengths)) == pytest.approx(best)
    else:
        assert sum(lengths) == 0 or rate(sum(lengths)) == pytest.approx(best)
    assert all(length <= len(own) for length, own in zip(lengths, chances, strict=True))
