"""Finding the beginning of a text in pages that were computed for others. No torch here.

The key of a page covers all tokens up to its end, and a root that says whose they are: pages are shared only by those
who give the same root. What a token can see is all that matters behind it, so with a window a text may go on from
where only its last W - 1 tokens are still there.
"""

from array import array
from collections.abc import Callable, Sequence
from hashlib import blake2b

from circius.base.config import Window

PAGE = 64
"""Tokens of a page: the attention kernels take keys in blocks of as many."""
_KEY_BYTES = 24


def root_key(*parts: bytes) -> bytes:
    """The key before the first page: of the salt, the adapter, and whatever else tells texts apart."""
    digest = blake2b(digest_size=_KEY_BYTES)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def extend_keys(keys: list[bytes], root: bytes, tokens: Sequence[int], n_pages: int) -> None:
    """Adds the keys of the next pages of `tokens` to `keys`, until there are `n_pages`."""
    while len(keys) < n_pages:
        begin = len(keys) * PAGE
        assert begin + PAGE <= len(tokens), "only full pages have keys"
        page = array("q", tokens[begin : begin + PAGE]).tobytes()
        keys.append(blake2b(page, key=keys[-1] if keys else root, digest_size=_KEY_BYTES).digest())


def first_page_seen(position: int, window: Window) -> int:
    """The page of the oldest token that the one at `position` sees.

    >>> first_page_seen(200, None), first_page_seen(200, 64), first_page_seen(191, 64), first_page_seen(190, 64)
    (0, 2, 2, 1)
    """
    return 0 if window is None else max(0, position - window + 1) // PAGE


def find_prefix(keys: Sequence[bytes], find: Callable[[bytes], int | None], window: Window) -> list[int | None]:
    """The pages of the longest beginning that need not be computed; None for those that nobody will see.

    >>> pages = {b"c": 7, b"d": 8, b"f": 9}
    >>> find_prefix([b"a", b"b", b"c", b"d", b"e", b"f"], pages.get, window=128)
    [None, None, 7, 8]
    >>> find_prefix([b"a", b"b", b"c", b"d"], pages.get, window=129)  # its last 128 tokens are there
    [None, None, 7, 8]
    >>> find_prefix([b"a", b"b", b"c", b"d"], pages.get, window=130)
    []
    """
    end = len(keys)
    found: list[int] = []  # from the page before `end` backwards
    for index in range(len(keys) - 1, -1, -1):
        page = find(keys[index])
        if page is None:
            end, found = index, []
            continue
        found.append(page)
        if index <= first_page_seen(end * PAGE, window):
            break
    if not found:
        return []
    return [*[None] * (end - len(found)), *reversed(found)]
