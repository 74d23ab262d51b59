"""Streaming text: spaces and characters where they belong."""

from circius.text import StreamDecoder
from tests.vocabularies import mistral

HELLO, THERE = 22557, 736
PARROT = [28705, 243, 162, 169, 159]


def test_spaces_between_tokens_are_kept() -> None:
    stream = StreamDecoder(mistral("v1"))
    assert [stream.push([token]) for token in (HELLO, THERE)] == ["Hello", " there"]


def test_the_first_space_is_encodings_unless_a_prompt_came_before() -> None:
    assert StreamDecoder(mistral("v1")).push([THERE]) == "there"
    assert StreamDecoder(mistral("v1"), [1]).push([THERE]) == "there"
    assert StreamDecoder(mistral("v1"), [1, HELLO]).push([THERE]) == " there"


def test_a_character_comes_whole() -> None:
    stream = StreamDecoder(mistral("v1"))
    assert [stream.push([token]) for token in PARROT] == ["", "", "", "", "🦜"]
    assert stream.flush() == ""


def test_a_broken_character_shows_at_the_end_only() -> None:
    stream = StreamDecoder(mistral("v1"))
    assert [stream.push([token]) for token in PARROT[:3]] == ["", "", ""]
    assert stream.flush() == "\ufffd\ufffd"


def test_a_control_token_ends_a_broken_character() -> None:
    stream = StreamDecoder(mistral("v1"))
    assert stream.push([243]) == ""
    assert stream.push([2, HELLO]) == "\ufffd Hello"
