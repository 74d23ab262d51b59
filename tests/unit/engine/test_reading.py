"""Texts read and tokenised piece by piece: the ids of the whole text, for real vocabularies of every kind."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circius.base.errors import PromptError
from circius.engine.reading import TextCounter, read_pieces, stream_ids
from circius.text import Tokenizer
from tests.vocabularies import mistral

PROSE = (
    'The mistral is a strong, cold wind.\n\n    def f(x):\n        return "é", x ** 2\n\n'
    "It blows   from the north-west; Größe: 1234567 km/h!\r\n\tC'est la vie… 風が吹く。 👩‍👩‍👧\n"
)


@pytest.fixture(scope="module", params=["v1", "v3"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return mistral(request.param)


@pytest.mark.parametrize("size", [2100, 3000, 5000])
def test_pieces_give_the_ids_of_the_whole(tokenizer: Tokenizer, size: int) -> None:
    text = PROSE * 60
    pieces = [text[begin : begin + 701] for begin in range(0, len(text), 701)]
    assert list(stream_ids(tokenizer, pieces, piece_chars=size)) == tokenizer.encode(text)


@settings(max_examples=15, deadline=None)
@given(words=st.lists(st.sampled_from([*PROSE.split(" "), "\n", "\n\n", " ", "   "]), min_size=800, max_size=1200))
def test_any_mixture_of_words_and_spaces(words: list[str]) -> None:
    tokenizer = mistral("v1")
    text = " ".join(words)
    assert list(stream_ids(tokenizer, [text], piece_chars=len(text) // 2)) == tokenizer.encode(text)
    pieces = [text[begin : begin + 900] for begin in range(0, len(text), 900)]
    assert list(stream_ids(tokenizer, pieces, piece_chars=2100)) == tokenizer.encode(text)


def test_a_text_without_any_space_is_cut_where_tokens_end(tokenizer: Tokenizer) -> None:
    text = "".join(chr(97 + (place * place) % 26) for place in range(8000))
    pieces = [text[begin : begin + 500] for begin in range(0, len(text), 500)]
    assert list(stream_ids(tokenizer, pieces, piece_chars=2500)) == tokenizer.encode(text)


def test_only_a_piece_is_held_at_a_time(tokenizer: Tokenizer) -> None:
    n_read = 0

    def endless() -> Iterator[str]:
        nonlocal n_read
        while True:
            n_read += len(PROSE)
            yield PROSE

    n_chars = 0
    for count, token in enumerate(stream_ids(tokenizer, endless(), piece_chars=4000)):
        n_chars += len(tokenizer.decode([token]))
        # In multibyte characters each token shows as U+FFFD, so this count runs ahead of the text by a little.
        if count == 20_000:
            break
    assert n_read < n_chars + 6000


def test_nothing_gives_no_ids(tokenizer: Tokenizer) -> None:
    assert list(stream_ids(tokenizer, [])) == []
    assert list(stream_ids(tokenizer, ["", ""])) == []


def test_a_file_is_read_as_it_stands(tmp_path: Path) -> None:
    text = "\ufeffa\r\nb\rc – 👩\n" * 20_000
    file = tmp_path / "text"
    file.write_bytes(text.encode())
    counter = TextCounter(read_pieces(file))
    pieces = list(counter)
    assert len(pieces) > 1
    assert "".join(pieces) == text
    assert counter.n_bytes == len(text.encode())


@pytest.mark.parametrize(
    ("content", "place"), [(b"abc\xff", 3), (b"x" * 70_000 + b"\xc3(", 70_000), (b"x" * 65_535 + b"\xe2\x80", 65_535)]
)
def test_a_file_that_is_not_utf_8_names_the_byte(tmp_path: Path, content: bytes, place: int) -> None:
    file = tmp_path / "text"
    file.write_bytes(content)
    with pytest.raises(PromptError, match=f"not UTF-8: byte {place} is 0x"):
        list(read_pieces(file))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="cannot be read"):
        list(read_pieces(tmp_path / "none"))
