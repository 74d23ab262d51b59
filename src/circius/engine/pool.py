"""Which pages of the cache are taken, by how many, and which can be found again by what they hold. No torch here.

A page is taken, shared and given back; nobody else counts. A page that is remembered under a key stays findable after
the last who held it has given it back, until its place is needed: then those that were given back first go first.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from circius.base.errors import CirciusError


class NoPagesError(CirciusError):
    """Every page is held by somebody."""


class PagePool:
    """Pages 0 to `n_pages - 1`.

    >>> pool = PagePool(2)
    >>> page = pool.take()
    >>> pool.remember(page, b"the first page of a text")
    >>> pool.give(page)
    >>> pool.find(b"the first page of a text") == page, pool.n_free
    (True, 2)
    """

    def __init__(self, n_pages: int) -> None:
        assert n_pages > 0
        self.n_pages = n_pages
        self._holders = [0] * n_pages
        self._unused = list(range(n_pages - 1, -1, -1))
        self._given_back: dict[int, None] = {}
        """Remembered pages that nobody holds, the first to go first; a dict, for its order and its quick removal."""
        self._keys: dict[int, bytes] = {}
        self._pages: dict[bytes, int] = {}
        self.n_evicted = 0

    @property
    def n_free(self) -> int:
        """The pages that can be taken now."""
        return len(self._unused) + len(self._given_back)

    @property
    def n_held(self) -> int:
        return self.n_pages - self.n_free

    def take(self) -> int:
        """A page that nobody else holds, with anything in it.

        Raises:
            NoPagesError: there is none.
        """
        if self._unused:
            page = self._unused.pop()
        elif self._given_back:
            page = next(iter(self._given_back))
            del self._given_back[page]
            del self._pages[self._keys.pop(page)]
            self.n_evicted += 1
        else:
            raise NoPagesError(f"all {self.n_pages} pages of the cache are in use")
        self._holders[page] = 1
        return page

    def share(self, page: int) -> None:
        """Holds a page that somebody holds, or that `find` has just named."""
        if self._holders[page] == 0:
            del self._given_back[page]
        self._holders[page] += 1

    def give(self, page: int) -> None:
        """Gives back one hold on a page."""
        assert self._holders[page] > 0, f"page {page} was given back too often"
        self._holders[page] -= 1
        if self._holders[page] == 0:
            if page in self._keys:
                self._given_back[page] = None
            else:
                self._unused.append(page)

    def remember(self, page: int, key: bytes) -> None:
        """Makes a held page findable. Where another page is known by this key already, nothing happens."""
        assert self._holders[page] > 0
        if key in self._pages or page in self._keys:
            return
        self._keys[page], self._pages[key] = key, page

    def find(self, key: bytes) -> int | None:
        """The page that is remembered under this key; `share` it before anything is taken."""
        return self._pages.get(key)

    def check(self, tables: Iterable[Sequence[int | None]]) -> None:
        """Asserts that the pool and those who hold its pages agree: for tests, and after an error."""
        held = Counter(page for table in tables for page in table if page is not None)
        for page in range(self.n_pages):
            assert self._holders[page] == held[page], f"page {page}: {self._holders[page]} holds, {held[page]} tables"
        free = [*self._unused, *self._given_back]
        assert len(set(free)) == len(free) == self.n_pages - len(held), "a page is lost, or free twice"
        assert {page: key for key, page in self._pages.items()} == self._keys
        assert all(page in self._keys for page in self._given_back)
        assert not any(page in self._keys for page in self._unused)
