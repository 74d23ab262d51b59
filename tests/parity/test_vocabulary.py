"""A vocabulary of one's own, as transformers, mistral-common and SentencePiece read it."""

from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given, settings
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from transformers import AutoTokenizer, LlamaTokenizer

from circius.text import Message, load_chat_template
from circius.text.mistral_jinja import CONTROLS, ChatStyle
from tests.invented import lines, loaded, write_all
from tests.vocabularies import any_text, conversations, hard_texts


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[ChatStyle, Path]:
    return write_all(tmp_path_factory.mktemp("vocabularies"))


def plain(text: str) -> bool:
    """Whether a text holds nothing that others read as control tokens, and no `▁`, which they take for a space."""
    return not any(mark in text for mark in ("<s>", "</s>", "<unk>", "▁", "[INST]", "[/INST]", *CONTROLS["v3"]))


@pytest.fixture(scope="module")
def peers(folders: dict[ChatStyle, Path]) -> dict[ChatStyle, Any]:
    return {style: AutoTokenizer.from_pretrained(folder) for style, folder in folders.items()}


@settings(max_examples=60, deadline=None)
@given(text=any_text | hard_texts)
def test_transformers_and_sentencepiece_read_it_alike(
    folders: dict[ChatStyle, Path], peers: dict[ChatStyle, Any], text: str
) -> None:
    if not plain(text):
        return
    for style, folder in folders.items():
        ours = loaded(folder).encode(text)
        assert peers[style].encode(text, add_special_tokens=False) == ours
        assert peers[style].decode(ours) == text
        assert sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).encode(text) == ours


def test_transformers_llama_tokenizer_reads_it(folders: dict[ChatStyle, Path]) -> None:
    peer = LlamaTokenizer.from_pretrained(folders["v3"])
    text = "\n".join(lines()[:5])
    assert peer.encode(text, add_special_tokens=False) == loaded(folders["v3"]).encode(text)
    assert (peer.bos_token_id, peer.eos_token_id, peer.unk_token_id) == (1, 2, 0)
    assert peer.convert_tokens_to_ids("[INST]") == 3


@settings(max_examples=30, deadline=None)
@given(messages=conversations(any_text.filter(plain)))
def test_the_chat_templates_of_all(
    folders: dict[ChatStyle, Path], peers: dict[ChatStyle, Any], messages: list[Message]
) -> None:
    chat = [{"role": message.role, "content": message.content} for message in _unmerged(messages)]
    v3 = load_chat_template(folders["v3"], loaded(folders["v3"]))
    v1 = load_chat_template(folders["v1"], loaded(folders["v1"]))
    assert (v3.name, v3.is_shipped, v1.name, v1.is_shipped) == ("v3", True, "model", True)
    exact = load_chat_template(folders["v1"], loaded(folders["v1"]), name="v1")
    assert v1.encode(chat) == exact.encode(chat)
    for template, style in ((v3, "v3"), (v1, "v1")):
        theirs = peers[style].apply_chat_template(chat, add_generation_prompt=True, return_dict=False)  # type: ignore[index]
        assert template.encode(chat) == theirs


def _unmerged(messages: list[Message]) -> list[Message]:
    """One system message at most, and then the two in turn, as most templates want it."""
    kept: list[Message] = []
    for message in messages:
        if message.role == "system" and kept:
            continue
        if kept and kept[-1].role == message.role:
            kept[-1] = message
        else:
            kept.append(message)
    return kept


def test_mistral_common_reads_it(folders: dict[ChatStyle, Path]) -> None:
    peer = MistralTokenizer.from_file(str(folders["v3"] / "tokenizer.model.v3"))
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "bada"},
        {"role": "assistant", "content": "kelo"},
        {"role": "user", "content": " mi 12"},
    ]
    template = load_chat_template(folders["v3"], loaded(folders["v3"]))
    assert template.encode(chat) == peer.encode_chat_completion(ChatCompletionRequest(messages=chat)).tokens
