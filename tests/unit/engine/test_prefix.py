"""Which pages hold the beginning of a text, and which of them matter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circius.base.config import Window
from circius.engine.prefix import PAGE, extend_keys, find_prefix, first_page_seen, root_key
from circius.model.window import visible

pytestmark = pytest.mark.quick


def _keys(tokens: list[int], root: bytes = b"r") -> list[bytes]:
    keys: list[bytes] = []
    extend_keys(keys, root, tokens, len(tokens) // PAGE)
    return keys


def test_a_key_covers_all_before_it() -> None:
    tokens = list(range(3 * PAGE))
    other = [*tokens[:5], 999, *tokens[6:]]
    assert len(set(_keys(tokens))) == 3
    assert not set(_keys(tokens)) & set(_keys(other)), "a change on the first page changes all keys behind it"
    assert _keys(tokens)[:2] == _keys(tokens[: 2 * PAGE + 7])


def test_keys_of_another_root_are_others() -> None:
    tokens = list(range(2 * PAGE))
    assert not set(_keys(tokens, root_key(b"one"))) & set(_keys(tokens, root_key(b"two")))
    assert root_key(b"a", b"bc") != root_key(b"ab", b"c")


def test_only_full_pages_have_keys() -> None:
    with pytest.raises(AssertionError, match="full"):
        extend_keys([], b"r", [1] * (PAGE - 1), 1)


@given(
    is_there=st.lists(st.booleans(), max_size=12),
    window=st.one_of(st.none(), st.integers(1, 600)),
)
def test_the_longest_beginning_whose_visible_tokens_are_all_there(is_there: list[bool], window: Window) -> None:
    keys = [bytes([index]) for index in range(len(is_there))]
    held = {key: index for index, (key, there) in enumerate(zip(keys, is_there, strict=True)) if there}
    found = find_prefix(keys, held.get, window)

    def suffices(n_pages: int) -> bool:
        next_token = n_pages * PAGE
        seen = [key for key in range(next_token) if visible(next_token, key, window)]
        return all(is_there[key // PAGE] for key in seen)

    # A page must be there for the beginning to be worth anything, though with W = 1 nothing before is seen.
    longest = max(
        (n for n in range(len(keys) + 1) if suffices(n) and (n == 0 or is_there[n - 1])),
        default=0,
    )
    assert len(found) == longest
    oldest = first_page_seen(longest * PAGE, window)
    assert all(page == index for index, page in enumerate(found) if index >= oldest)
    assert all(page is None or page == index for index, page in enumerate(found))


@given(position=st.integers(0, 5000), window=st.one_of(st.none(), st.integers(1, 600)))
def test_the_first_page_seen_follows_from_the_window(position: int, window: Window) -> None:
    oldest = next(key for key in range(position + 1) if visible(position, key, window))
    assert first_page_seen(position, window) == oldest // PAGE
