"""Which file holds the tokenizer, and what damaged or foreign ones say."""

import json
import shutil
from pathlib import Path

import pytest

from circius.base.errors import PromptError, TokenizerError
from circius.text import gguf_fields, load_tokenizer
from tests.vocabularies import FILES, FOLDER, mistral, write_gguf

BYTE_LEVEL = {
    "version": "1.0",
    "added_tokens": [],
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
}


def test_a_folder_with_one_model(tmp_path: Path) -> None:
    shutil.copy(FILES["v1"], tmp_path / "tokenizer.model")
    assert load_tokenizer(tmp_path).vocab_size == 32000


def test_equal_copies_are_one_tokenizer(tmp_path: Path) -> None:
    shutil.copy(FILES["v3"], tmp_path / "tokenizer.model")
    shutil.copy(FILES["v3"], tmp_path / "tokenizer.model.v3")
    assert load_tokenizer(tmp_path).source.name == "tokenizer.model.v3"


def test_different_models_are_refused(tmp_path: Path) -> None:
    shutil.copy(FILES["v1"], tmp_path / "tokenizer.model")
    shutil.copy(FILES["v3"], tmp_path / "tokenizer.model.v3")
    with pytest.raises(TokenizerError, match=r"tokenizer.model, tokenizer.model.v3 are different tokenizers"):
        load_tokenizer(tmp_path)


def test_sentencepiece_comes_before_its_conversion(tmp_path: Path) -> None:
    shutil.copy(FILES["v1"], tmp_path / "tokenizer.model")
    (tmp_path / "tokenizer.json").write_text(json.dumps(BYTE_LEVEL))
    assert load_tokenizer(tmp_path).source.name == "tokenizer.model"


def test_added_tokens_need_the_conversion(tmp_path: Path) -> None:
    shutil.copy(FILES["v1"], tmp_path / "tokenizer.model")
    (tmp_path / "added_tokens.json").write_text('{"<|im_end|>": 32000}')
    with pytest.raises(TokenizerError, match=r"'<\|im_end\|>' are not in tokenizer.model"):
        load_tokenizer(tmp_path)
    token = {"id": 32000, "content": "<|im_end|>", "special": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    vocab = {f"x{index}": index for index in range(32000)}
    added = {**BYTE_LEVEL, "added_tokens": [{**token, **flags}], "model": {"type": "BPE", "vocab": vocab, "merges": []}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(added))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.source.name == "tokenizer.json"
    assert tokenizer.special_ids == {"<|im_end|>": 32000}


def test_special_files(tmp_path: Path) -> None:
    shutil.copy(FILES["v1"], tmp_path / "tokenizer.model")
    (tmp_path / "tokenizer_config.json").write_text('{"add_bos_token": false, "legacy": false}')
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 7]}')
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.adds_bos, tokenizer.eos_ids) == (False, {2, 7})
    assert tokenizer.encode("a</s>b", special=True) == [264, 2, 28726]
    assert mistral("v1").encode("a</s>b", special=True) == [264, 2, 287]
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": "2"}')
    with pytest.raises(TokenizerError, match="eos_token_id is '2'"):
        load_tokenizer(tmp_path)
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(TokenizerError, match=r"generation_config.json: cannot be read as JSON"):
        load_tokenizer(tmp_path)


def test_tokenizer_json(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(BYTE_LEVEL))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode("abba") == [2, 1, 0]
    assert tokenizer.decode([2, 1, 0]) == "abba"
    assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.adds_bos) == (None, frozenset(), False)
    with pytest.raises(PromptError, match="has no BOS token"):
        tokenizer.encode("a", bos=True)
    with pytest.raises(PromptError, match=r"byte 1 of the text is 0x63, which the vocabulary .* cannot spell"):
        tokenizer.encode("ac")


@pytest.mark.parametrize("kept", [0, 1, 100, 20_000, 400_000])
def test_a_model_cut_short_is_refused(tmp_path: Path, kept: int) -> None:
    (tmp_path / "tokenizer.model").write_bytes(FILES["v1"].read_bytes()[:kept])
    with pytest.raises(TokenizerError, match=r"tokenizer.model: (not a|SentencePiece cannot)"):
        load_tokenizer(tmp_path)


def test_a_model_cut_between_two_fields_is_refused(tmp_path: Path) -> None:
    whole = FILES["v1"].read_bytes()
    normaliser = whole.rindex(b"\x1a\x12\n\x08identity")
    (tmp_path / "tokenizer.model").write_bytes(whole[:normaliser])
    with pytest.raises(TokenizerError, match="cut short"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"model": 3}', b"\xff\xfe", b"\x80" * 99])
def test_damaged_files_are_refused(tmp_path: Path, content: bytes) -> None:
    for name in ("tokenizer.json", "x.gguf", "tokenizer.model"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TokenizerError, match=name):
            load_tokenizer(tmp_path / name)


def test_other_kinds_are_refused(tmp_path: Path) -> None:
    word_pieces = {**BYTE_LEVEL, "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(word_pieces))
    with pytest.raises(TokenizerError, match=r"the decoder \['WordPiece'\] is not implemented"):
        load_tokenizer(tmp_path)
    with pytest.raises(TokenizerError, match="belongs to later models than Mistral 7B"):
        load_tokenizer(FOLDER / "tekken_240911.json")
    with pytest.raises(TokenizerError, match="no such file or folder"):
        load_tokenizer(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TokenizerError, match="no tokenizer in this folder"):
        load_tokenizer(tmp_path / "empty")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(TokenizerError, match="not a tokenizer file by its name"):
        load_tokenizer(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tokenizer.ggml.model": "t5"}, "tokenizer.ggml.model is 't5'"),
        ({"tokenizer.ggml.pre": "falcon"}, "tokenizer.ggml.pre is 'falcon'"),
        ({"tokenizer.ggml.merges": ["ab"]}, "'ab', which is not two pieces"),
        ({"tokenizer.ggml.merges": ["q q"]}, "merges do not fit"),
        ({"tokenizer.ggml.tokens": ["a", "a"]}, "holds 'a' more than once"),
        ({"tokenizer.ggml.token_type": [1]}, "has 3 entries and token_type 1"),
        ({"tokenizer.ggml.eos_token_id": 9}, "eos_token_id is 9, but the vocabulary has 3 tokens"),
    ],
)
def test_a_gguf_that_contradicts_itself(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    fields = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": ["a", "b", "ab"],
        "tokenizer.ggml.token_type": [1, 1, 1],
        "tokenizer.ggml.merges": ["a b"],
    }
    assert load_tokenizer(write_gguf(tmp_path / "good.gguf", fields)).encode("abba") == [2, 1, 0]
    with pytest.raises(TokenizerError, match=rf"bad.gguf: .*{message}"):
        load_tokenizer(write_gguf(tmp_path / "bad.gguf", {**fields, **changed}))


def test_a_gguf_cut_short_is_refused(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "whole.gguf", gguf_fields(FILES["v1"])).read_bytes()
    for kept in (3, 30, 1000, len(whole) - 1):
        (tmp_path / "cut.gguf").write_bytes(whole[:kept])
        with pytest.raises(TokenizerError, match=r"cut.gguf: .*(damaged|not a GGUF)"):
            load_tokenizer(tmp_path / "cut.gguf")


def test_a_gguf_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="holds no tokenizer"):
        load_tokenizer(write_gguf(tmp_path / "bare.gguf", {"general.name": "x"}))


def test_a_gguf_without_a_pre_tokenizer_says_what_was_assumed(tmp_path: Path) -> None:
    fields = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [*"ab1234", "12", "123"],
        "tokenizer.ggml.token_type": [1] * 8,
        "tokenizer.ggml.merges": ["1 2", "12 3"],
    }
    tokenizer = load_tokenizer(write_gguf(tmp_path / "x.gguf", fields))
    assert "llama.cpp's default was assumed" in tokenizer.notes[0]
    assert tokenizer.encode("1231234") == [7, 7, 5]
