"""Tokenizers written beside weights are the same tokenizers."""

import json
from pathlib import Path

import pytest

from circius.base.errors import StorageError, TokenizerError
from circius.text import (
    Tokenizer,
    export_tokenizer,
    gguf_fields,
    load_chat_template,
    load_tokenizer,
    write_byte_tokenizer,
)
from circius.text.spm_model import parse_spm
from tests.vocabularies import FILES, mistral, write_gguf

TEXTS = ["", " a", "Hello there", "1905  ▁ 🦜\n\n", "[INST] </s> <|im_end|>", "\x00\t"]


def same(ours: Tokenizer, other: Tokenizer) -> bool:
    """Whether both give the same ids and the same text."""
    known = (ours.vocab_size, ours.bos_id, ours.eos_ids, ours.adds_bos, ours.special_ids)
    return known == (other.vocab_size, other.bos_id, other.eos_ids, other.adds_bos, other.special_ids) and all(
        ours.encode(text) == other.encode(text)
        and ours.encode(text, special=True) == other.encode(text, special=True)
        and ours.decode(ours.encode(text)) == other.decode(other.encode(text))
        for text in TEXTS
    )


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_sentencepiece_through_gguf_and_back(tmp_path: Path, version: str) -> None:
    embedded = write_gguf(tmp_path / "model.gguf", gguf_fields(FILES[version]))
    assert same(load_tokenizer(embedded), mistral(version))
    assert load_chat_template(embedded, load_tokenizer(embedded)).name == version
    export_tokenizer(embedded, tmp_path / "folder")
    assert same(load_tokenizer(tmp_path / "folder"), mistral(version))
    pieces, written = (parse_spm(path.read_bytes()) for path in (FILES[version], tmp_path / "folder/tokenizer.model"))
    assert pieces == written


def test_byte_level_through_a_folder_and_back(demo_gguf: Path, tmp_path: Path) -> None:
    original = load_tokenizer(demo_gguf)
    export_tokenizer(demo_gguf, tmp_path / "folder")
    copied = load_tokenizer(tmp_path / "folder")
    assert same(copied, original)
    messages = [{"role": "user", "content": "Hi <|im_end|> 12"}]
    template = load_chat_template(tmp_path / "folder", copied)
    assert template.encode(messages) == load_chat_template(demo_gguf, original).encode(messages)
    fields = gguf_fields(tmp_path / "folder")
    assert fields["tokenizer.ggml.pre"] == "smollm"
    embedded = write_gguf(tmp_path / "model.gguf", fields)
    assert same(load_tokenizer(embedded), original)
    known = gguf_fields(demo_gguf)
    assert {key: known[key] for key in fields if key in known} == {key: fields[key] for key in fields if key in known}


def test_the_byte_tokenizer_through_gguf_and_back(tmp_path: Path) -> None:
    write_byte_tokenizer(tmp_path / "bytes")
    tokenizer = load_tokenizer(tmp_path / "bytes")
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_ids) == (259, 1, {2})
    assert tokenizer.encode("Aé", bos=True) == [1, 3 + 65, 3 + 0xC3, 3 + 0xA9]
    embedded = write_gguf(tmp_path / "model.gguf", gguf_fields(tmp_path / "bytes"))
    assert load_tokenizer(embedded).encode("Aé ▁", bos=True) == tokenizer.encode("Aé ▁", bos=True)


def test_a_folder_is_copied(tmp_path: Path) -> None:
    write_byte_tokenizer(tmp_path / "a")
    (tmp_path / "a" / "chat_template.jinja").write_text("{{ messages[0].content }}")
    (tmp_path / "a" / "model.safetensors").write_bytes(b"weights")
    export_tokenizer(tmp_path / "a", tmp_path / "b")
    copied = {file.name: file.read_bytes() for file in (tmp_path / "b").iterdir()}
    original = {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()}
    assert copied == {name: content for name, content in original.items() if name != "model.safetensors"}
    assert len(copied) == 4


def test_a_single_file_is_copied(tmp_path: Path) -> None:
    export_tokenizer(FILES["v3"], tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [FILES["v3"].name]
    assert same(load_tokenizer(tmp_path), mistral("v3"))


def test_what_gguf_cannot_express_is_refused(demo_gguf: Path, tmp_path: Path) -> None:
    export_tokenizer(demo_gguf, tmp_path)
    rules = json.loads((tmp_path / "tokenizer.json").read_text())
    rules["pre_tokenizer"]["pretokenizers"].reverse()
    (tmp_path / "tokenizer.json").write_text(json.dumps(rules))
    with pytest.raises(TokenizerError, match="has no name that circius knows"):
        gguf_fields(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot make the folder"):
        write_byte_tokenizer(tmp_path / "file")
