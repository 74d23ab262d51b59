"""One answer on its way through the engine: its tokens, and which of them stand in which pages. No torch here."""

from collections.abc import Sequence

from circius.base.config import Window
from circius.engine.pool import PagePool
from circius.engine.prefix import PAGE, extend_keys, find_prefix, first_page_seen


class Stream:
    """The text of one answer, prompt and all, of which the cache holds the first `n_cached` tokens.

    `pages` are held from page number `first_page` of the text on: what was before them has left every window.
    `root`: texts share pages with those of the same root only.
    """

    def __init__(
        self, tokens: Sequence[int], *, root: bytes, takes_found: bool = True, n_most: int | None = None
    ) -> None:
        """takes_found: whether what others have computed may be used, or all must be computed again.
        n_most: the tokens that the cache will ever hold of it; None if that is not known.
        """
        self.tokens = list(tokens)
        self.n_most = n_most
        self.root, self._takes_found = root, takes_found
        self.n_cached = 0
        self.n_found = 0
        """Of the prompt, the tokens that needed no computing when the stream was last admitted."""
        self.pages: list[int] = []
        self.first_page = 0
        self._keys: list[bytes] = []

    @property
    def n_new(self) -> int:
        """The tokens that are known and not yet in the cache; after the last of them the next one is drawn."""
        return len(self.tokens) - self.n_cached

    @property
    def may_need_more(self) -> bool:
        """Whether it can come to need a page beyond those that it has."""
        return self.n_most is None or self.end_page * PAGE < self.n_most

    @property
    def end_page(self) -> int:
        return self.first_page + len(self.pages)

    def find(self, pool: PagePool, window: Window) -> None:
        """Takes over what others have computed of this text; at least one token is left to be computed."""
        assert not self.pages
        assert self.n_cached == 0
        if not self._takes_found:
            return
        n_pages = (len(self.tokens) - 1) // PAGE
        extend_keys(self._keys, self.root, self.tokens, n_pages)
        found = find_prefix(self._keys[:n_pages], pool.find, window)
        self.pages = [page for page in found if page is not None]
        self.first_page = len(found) - len(self.pages)
        for page in self.pages:
            pool.share(page)
        self.n_cached = self.n_found = len(found) * PAGE

    def drop_unseen(self, pool: PagePool, window: Window) -> None:
        """Gives back the pages that no further token will see."""
        n_unseen = min(first_page_seen(self.n_cached, window) - self.first_page, len(self.pages))
        if n_unseen > 0:
            for page in self.pages[:n_unseen]:
                pool.give(page)
            del self.pages[:n_unseen]
            self.first_page += n_unseen

    def pages_lacking(self, n_tokens: int) -> int:
        """The pages to take before `n_tokens` more than the cached ones can be computed."""
        return max(0, -(-(self.n_cached + n_tokens) // PAGE) - self.end_page)

    def grow(self, pool: PagePool, n_tokens: int) -> None:
        """Takes those pages.

        Raises:
            NoPagesError: there are not so many; those that were there are held now.
        """
        for _ in range(self.pages_lacking(n_tokens)):
            self.pages.append(pool.take())

    def fork(self, pool: PagePool, other: "Stream") -> tuple[int, int] | None:
        """Gives another stream, which goes on from what is cached here, its pages: the full ones are shared, and of the
        last one that is not full, if there is one, (this page, its copy) is returned, for somebody to copy."""
        assert not other.pages
        assert other.tokens[: self.n_cached] == self.tokens[: self.n_cached]
        n_full = self.n_cached // PAGE - self.first_page
        for page in self.pages[:n_full]:
            pool.share(page)
        other.pages, other.first_page, other.n_cached = self.pages[:n_full], self.first_page, self.n_cached
        other._keys = list(self._keys)
        if self.n_cached % PAGE == 0:
            return None
        other.pages.append(pool.take())
        return self.pages[n_full], other.pages[-1]

    def advance(self, pool: PagePool, n_tokens: int) -> None:
        """Counts tokens as cached, and makes the pages that they filled findable for others."""
        n_full = self.n_cached // PAGE
        self.n_cached += n_tokens
        assert self.n_cached <= len(self.tokens)
        extend_keys(self._keys, self.root, self.tokens, self.n_cached // PAGE)
        for index in range(n_full, self.n_cached // PAGE):
            pool.remember(self.pages[index - self.first_page], self._keys[index])

    def leave(self, pool: PagePool) -> None:
        """Gives all pages back, the last first: the beginning of a text is the likeliest to be asked for again."""
        for page in reversed(self.pages):
            pool.give(page)
        self.pages, self.first_page, self.n_cached = [], 0, 0


def most_pages(n_tokens: int, window: Window, chunk_size: int) -> int:
    """The pages that a text of `n_tokens` ever holds at once, if at most `chunk_size` are computed at once.

    >>> most_pages(32_768, 4096, 512), most_pages(32_768, None, 512), most_pages(100, 4096, 512)
    (73, 512, 2)
    """
    whole = -(-n_tokens // PAGE)
    return whole if window is None else min(whole, -(-(window - 1 + chunk_size) // PAGE) + 1)
