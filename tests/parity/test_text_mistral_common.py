"""Chat templates v1, v2 and v3 against mistral-common, and decoding against SentencePiece itself."""

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from mistral_common.protocol.instruct.messages import AssistantMessage, SystemMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from circius.text import ChatTemplate, Message, load_chat_template
from tests.vocabularies import FILES, any_text, conversations, hard_texts, mistral

VERSIONS = ("v1", "v2", "v3")
PEERS = {"v1": MistralTokenizer.v1(), "v2": MistralTokenizer.v2(), "v3": MistralTokenizer.v3()}
RAW = {version: sentencepiece.SentencePieceProcessor(model_file=str(path)) for version, path in FILES.items()}


def theirs(version: str, messages: list[Message], *, continue_final: bool = False) -> list[int]:
    def convert(index: int, message: Message) -> UserMessage | AssistantMessage | SystemMessage:
        if message.role == "user":
            return UserMessage(content=message.content)
        if message.role == "system":
            return SystemMessage(content=message.content)
        return AssistantMessage(content=message.content, prefix=continue_final and index == len(messages) - 1)

    request = ChatCompletionRequest(messages=[convert(index, message) for index, message in enumerate(messages)])
    tokens: list[int] = PEERS[version].encode_chat_completion(request).tokens
    return tokens


def template(version: str, injection: str = "escape") -> ChatTemplate:
    return load_chat_template(FILES[version], mistral(version), injection=injection)


def plain(text: str) -> bool:
    """Whether the default treats a text as mistral-common does: no turn marks, no literal `▁`."""
    return not any(mark in text for mark in ("[INST]", "[/INST]", "▁"))


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=60, deadline=None)
@given(messages=conversations(any_text | hard_texts.filter(plain)))
def test_conversations(version: str, messages: list[Message]) -> None:
    if all(plain(message.content) for message in messages):
        assert template(version).encode(messages) == theirs(version, messages)


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=60, deadline=None)
@given(messages=conversations(hard_texts))
def test_conversations_with_turn_marks_allowed(version: str, messages: list[Message]) -> None:
    assert template(version, "allow").encode(messages) == theirs(version, messages)


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=60, deadline=None)
@given(messages=conversations(any_text, continues=True))
def test_continued_answers(version: str, messages: list[Message]) -> None:
    if all(plain(message.content) for message in messages):
        expected = theirs(version, messages, continue_final=True)
        assert template(version).encode(messages, continue_final=True) == expected


@pytest.mark.parametrize("version", VERSIONS)
@settings(deadline=None)
@given(text=any_text | hard_texts)
def test_encoding_is_sentencepieces(version: str, text: str) -> None:
    text = text.replace("▁", "")
    assert mistral(version).encode(text) == RAW[version].encode(text)


@pytest.mark.parametrize("version", VERSIONS)
@settings(deadline=None)
@given(data=st.data())
def test_decoding_is_sentencepieces(version: str, data: st.DataObject) -> None:
    """Also of broken characters: byte pieces in any order. The unknown token is shown as ⁇ there, left out here."""
    tokenizer = mistral(version)
    ids = data.draw(st.lists(st.integers(1, 1100) | st.integers(1, tokenizer.vocab_size - 1), max_size=20))
    assert tokenizer.decode(ids) == RAW[version].decode(ids)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_piece_is_sentencepieces(version: str) -> None:
    tokenizer = mistral(version)
    assert tokenizer.vocab_size == RAW[version].vocab_size()
    for token in range(1, tokenizer.vocab_size):
        assert tokenizer.piece(token) == RAW[version].id_to_piece(token)
        assert tokenizer.is_special(token) == RAW[version].is_control(token)
