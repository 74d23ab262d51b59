"""Counting holds on pages, and finding them again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from circius.engine.pool import NoPagesError, PagePool

pytestmark = pytest.mark.quick


def test_pages_given_back_first_are_forgotten_first() -> None:
    pool = PagePool(3)
    pages = [pool.take() for _ in range(3)]
    for page, key in zip(pages, (b"a", b"b", b"c"), strict=True):
        pool.remember(page, key)
    for page in (pages[1], pages[2], pages[0]):
        pool.give(page)
    assert pool.take() == pages[1]
    assert [pool.find(key) for key in (b"a", b"b", b"c")] == [pages[0], None, pages[2]]
    assert pool.n_evicted == 1


def test_a_page_that_is_shared_again_is_not_forgotten() -> None:
    pool = PagePool(2)
    page = pool.take()
    pool.remember(page, b"a")
    pool.give(page)
    pool.share(page)
    pool.take()
    with pytest.raises(NoPagesError, match="all 2 pages"):
        pool.take()
    assert pool.find(b"a") == page


def test_the_first_page_with_a_key_is_the_one_that_is_found() -> None:
    pool = PagePool(2)
    first, second = pool.take(), pool.take()
    pool.remember(first, b"a")
    pool.remember(second, b"a")
    pool.give(second)
    assert pool.find(b"a") == first
    assert pool.take() == second, "a page that nobody can find is free at once"


class Holders(RuleBasedStateMachine):
    """Some who take, share, remember and give back; the pool is asked whether all is well after each."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = PagePool(6)
        self.holds: list[int] = []

    @rule()
    def take(self) -> None:
        if self.pool.n_free:
            self.holds.append(self.pool.take())
        else:
            with pytest.raises(NoPagesError):
                self.pool.take()

    @precondition(lambda self: self.holds)
    @rule(data=st.data(), key=st.sampled_from([b"a", b"b", b"c", b"d"]))
    def remember(self, data: st.DataObject, key: bytes) -> None:
        self.pool.remember(data.draw(st.sampled_from(self.holds)), key)

    @rule(key=st.sampled_from([b"a", b"b", b"c", b"d"]))
    def find_and_share(self, key: bytes) -> None:
        if (page := self.pool.find(key)) is not None:
            self.pool.share(page)
            self.holds.append(page)

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def give(self, data: st.DataObject) -> None:
        page = data.draw(st.sampled_from(self.holds))
        self.holds.remove(page)
        self.pool.give(page)

    @invariant()
    def agrees(self) -> None:
        self.pool.check([self.holds])
        assert self.pool.n_held == len(set(self.holds))


TestHolders = Holders.TestCase


@given(st.integers(1, 50))
def test_every_page_is_taken_once(n_pages: int) -> None:
    pool = PagePool(n_pages)
    assert sorted(pool.take() for _ in range(n_pages)) == list(range(n_pages))
