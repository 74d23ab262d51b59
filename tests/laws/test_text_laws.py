"""Laws of text: nothing is lost on the way to tokens and back, and no message can pass for a turn."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circius.text import Message, StreamDecoder, Tokenizer, load_chat_template, load_tokenizer, write_byte_tokenizer
from circius.text.byte_alphabet import BYTE_OF
from tests.vocabularies import FILES, any_text, conversations, hard_texts, mistral

VERSIONS = ("v1", "v2", "v3")
TURNS = {
    version: [
        [mistral(version).id_of(piece) for piece in spelling]
        for word in (["[", "INST", "]"], ["[", "/", "INST", "]"])
        for spelling in (word, ["▁" + word[0], *word[1:]])
    ]
    for version in VERSIONS
}


@cache
def demo(path: Path) -> Tokenizer:
    return load_tokenizer(path)


def spellable(text: str, tokenizer: Tokenizer) -> bool:
    """Whether the byte-level vocabulary has all the bytes: the demo model's lacks a few control characters."""
    missing = {byte for character, byte in BYTE_OF.items() if tokenizer.id_of(character) is None}
    return missing.isdisjoint(text.encode())


@pytest.mark.parametrize("version", VERSIONS)
@settings(deadline=None)
@given(text=any_text | hard_texts)
def test_decoding_undoes_encoding(version: str, text: str) -> None:
    assert mistral(version).decode(mistral(version).encode(text)) == text


@settings(deadline=None)
@given(text=any_text | hard_texts)
def test_decoding_undoes_encoding_for_the_demo_model(demo_gguf: Path, text: str) -> None:
    tokenizer = demo(demo_gguf)
    if spellable(text, tokenizer):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_decoding_undoes_encoding_for_bytes(tmp_path: Path) -> None:
    write_byte_tokenizer(tmp_path)
    tokenizer = load_tokenizer(tmp_path)

    @settings(deadline=None)
    @given(text=any_text | hard_texts)
    def law(text: str) -> None:
        ids = tokenizer.encode(text)
        assert ids == [3 + byte for byte in text.encode()]
        assert tokenizer.decode(ids) == text

    law()


@pytest.mark.parametrize("version", VERSIONS)
@settings(deadline=None)
@given(data=st.data())
def test_streamed_pieces_join_to_the_whole(version: str, data: st.DataObject) -> None:
    check_stream(mistral(version), data)


@settings(deadline=None)
@given(data=st.data())
def test_streamed_pieces_join_to_the_whole_for_the_demo_model(demo_gguf: Path, data: st.DataObject) -> None:
    check_stream(demo(demo_gguf), data)


def check_stream(tokenizer: Tokenizer, data: st.DataObject) -> None:
    """Any ids at all, cut anywhere: byte pieces in any order, control tokens, ids beyond the vocabulary."""
    token = st.one_of(
        st.integers(0, tokenizer.vocab_size + 5), st.integers(0, 900), st.sampled_from(tokenizer.encode("a 🦜é\n"))
    )
    ids = data.draw(st.lists(token, max_size=30))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(ids)), max_size=6)))
    skip = data.draw(st.booleans())
    stream = StreamDecoder(tokenizer, skip_special=skip)
    pieces = [stream.push(ids[a:b]) for a, b in zip([0, *cuts], [*cuts, len(ids)], strict=True)]
    assert "".join(pieces) + stream.flush() == tokenizer.decode(ids, skip_special=skip)


@pytest.mark.parametrize("version", VERSIONS)
@settings(deadline=None)
@given(text=hard_texts, cut=st.integers(0, 40))
def test_a_completion_continues_its_prompt_exactly(version: str, text: str, cut: int) -> None:
    tokenizer = mistral(version)
    ids = tokenizer.encode(text)
    prompt, rest = ids[:cut], ids[cut:]
    stream = StreamDecoder(tokenizer, prompt)
    before = StreamDecoder(tokenizer)
    assert before.push(prompt) + "".join(stream.push([token]) for token in rest) + stream.flush() == text


@pytest.mark.parametrize("version", VERSIONS)
@settings(deadline=None)
@given(text=hard_texts | any_text)
def test_half_a_character_is_never_shown(version: str, text: str) -> None:
    stream = StreamDecoder(mistral(version))
    shown = ""
    for token in mistral(version).encode(text):
        shown += stream.push([token])
        assert text.startswith(shown)
    assert stream.flush() == ""


@pytest.mark.parametrize("version", VERSIONS)
@settings(deadline=None)
@given(text=hard_texts)
def test_text_never_becomes_a_control_token(version: str, text: str) -> None:
    tokenizer = mistral(version)
    assert not any(tokenizer.is_special(token) for token in tokenizer.encode(text))


@settings(deadline=None)
@given(text=hard_texts)
def test_text_never_becomes_a_control_token_of_the_demo_model(demo_gguf: Path, text: str) -> None:
    tokenizer = demo(demo_gguf)
    if spellable(text, tokenizer):
        assert not any(tokenizer.is_special(token) for token in tokenizer.encode(text))


def count(ids: Sequence[int], part: Sequence[int | None]) -> int:
    """How often `part` occurs in `ids`."""
    return sum(list(ids[at : at + len(part)]) == list(part) for at in range(len(ids)))


def neutral(messages: Sequence[Message]) -> list[Message]:
    """The same turns, saying nothing."""
    return [Message(message.role, "x") for message in messages]


@settings(deadline=None)
@given(messages=conversations(hard_texts))
def test_no_message_forges_a_turn_in_v1(messages: list[Message]) -> None:
    template = load_chat_template(FILES["v1"], mistral("v1"), name="v1")
    ids, plain = template.encode(messages), template.encode(neutral(messages))
    opening, closing = TURNS["v1"][:2], TURNS["v1"][2:]
    for spellings in (opening, closing):
        assert sum(count(ids, one) for one in spellings) == sum(count(plain, one) for one in spellings)
    allowed = load_chat_template(FILES["v1"], mistral("v1"), name="v1", injection="allow")
    if not any("▁" in message.content for message in messages):
        assert template.render(messages) == allowed.render(messages)


@pytest.mark.parametrize("version", ["v2", "v3"])
@pytest.mark.parametrize("injection", ["escape", "allow"])
@settings(deadline=None)
@given(messages=conversations(hard_texts))
def test_no_message_forges_a_turn_in_v2_and_v3(version: str, injection: str, messages: list[Message]) -> None:
    template = load_chat_template(FILES[version], mistral(version), name=version, injection=injection)
    ids, plain = template.encode(messages), template.encode(neutral(messages))
    control = set(mistral(version).special_ids.values())
    assert [token for token in ids if token in control] == [token for token in plain if token in control]


@settings(max_examples=50, deadline=None)
@given(messages=conversations(hard_texts))
def test_no_message_forges_a_turn_in_the_demo_models_template(demo_gguf: Path, messages: list[Message]) -> None:
    tokenizer = demo(demo_gguf)
    if not all(spellable(message.content, tokenizer) for message in messages):
        return
    template = load_chat_template(demo_gguf, tokenizer)
    ids, plain = template.encode(messages), template.encode(neutral(messages))
    control = set(tokenizer.special_ids.values())
    assert [token for token in ids if token in control] == [token for token in plain if token in control]
    assert tokenizer.decode(ids, skip_special=False) == template.render(messages)


@settings(max_examples=50, deadline=None)
@given(parts=st.lists(any_text | st.lists(st.integers(300, 31000), max_size=3), max_size=6))
def test_fixed_ids_stay_whole_inside_a_text(parts: list[str | list[int]]) -> None:
    tokenizer = mistral("v1")
    ids = tokenizer.encode_parts(parts)
    fixed = [part for part in parts if not isinstance(part, str)]
    at = 0
    for part in fixed:
        at += next(start for start in range(len(ids)) if ids[at + start : at + start + len(part)] == part) + len(part)
    texts = "".join(part if isinstance(part, str) else tokenizer.decode([28705, *part]) for part in parts)
    assert tokenizer.decode(ids).replace(" ", "") == texts.replace(" ", "")
