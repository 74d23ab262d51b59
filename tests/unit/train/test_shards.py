"""Token shards, and the pieces that a source makes of them: every token once, every byte counted."""

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circius.base.errors import CirciusError, InvalidInputError, StorageError, TokenizerError
from circius.text import Tokenizer, export_tokenizer, gguf_fields, load_tokenizer, write_byte_tokenizer
from circius.train import prepare as module
from circius.train import shards
from circius.train.fingerprint import fingerprint
from circius.train.prepare import Reading, prepare
from circius.train.text_source import TextSource
from tests.vocabularies import FILES, any_text, mistral, write_gguf

TEXTS = ["Hello there", " leading space", "é🦜▁", "\n", "a" * 300, *(f"Document number {n}." for n in range(40))]


def written(folder: Path, texts: list[str]) -> Path:
    file = folder / "texts.jsonl"
    file.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    return file


def made(folder: Path, texts: list[str], tokenizer: Tokenizer, **options: Any) -> Path:
    target = folder / "shards"
    shutil.rmtree(target, ignore_errors=True)
    prepare([written(folder, texts)], tokenizer, target, **options)
    return target


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("whole"), TEXTS, mistral("v1"))


@pytest.mark.parametrize("seq_len", [2, 3, 7, 10_000])
def test_every_token_but_the_first_is_predicted_once(whole: Path, seq_len: int) -> None:
    tokenizer = mistral("v1")
    source = TextSource(whole, tokenizer, seq_len=seq_len)
    kept = [text for text in TEXTS if not text.isspace()]
    expected = [token for text in kept for token in [*tokenizer.encode(text), 2]]
    examples = [source.example(index) for index in range(len(source))]
    assert [len(example) for example in examples] == [source.n_tokens(index) for index in range(len(source))]
    assert all(2 <= len(example) <= seq_len for example in examples)
    assert not any(example.learnt[0] for example in examples)
    assert all(example.learnt[1:].all() for example in examples)
    assert [token for example in examples for token in example.ids[1:].tolist()] == expected
    begins = [example for example in examples if example.ids[0] == 1]
    assert len(begins) == len(kept) == source.n_documents
    for before, after in pairwise(examples):
        assert after.ids[0] in (1, before.ids[-1])


@settings(max_examples=12, deadline=None)
@given(texts=st.lists(any_text.filter(lambda text: text.strip()), min_size=1, max_size=5), seq_len=st.integers(2, 9))
def test_bytes_are_exact(tmp_path_factory: pytest.TempPathFactory, texts: list[str], seq_len: int) -> None:
    folder = made(tmp_path_factory.mktemp("any"), texts, mistral("v3"))
    source = TextSource(folder, mistral("v3"), seq_len=seq_len)
    n_bytes = sum(len(text.encode()) for text in texts)
    assert sum(source.n_bytes(index) for index in range(len(source))) == n_bytes
    assert shards.read_meta(folder)["parts"]["train"]["bytes"] == n_bytes
    whole = TextSource(folder, mistral("v3"), seq_len=10_000)
    assert [whole.n_bytes(index) for index in range(len(texts))] == [len(text.encode()) for text in texts]


def test_a_tokenizer_without_bos(demo_gguf: Path, tmp_path: Path) -> None:
    """Then nothing predicts a document's first token, whose bytes are not counted."""
    tokenizer = load_tokenizer(demo_gguf)
    source = TextSource(made(tmp_path, ["Hello there", "x"], tokenizer), tokenizer, seq_len=100)
    first, second = source.example(0), source.example(1)
    assert first.ids.tolist() == [*tokenizer.encode("Hello there"), 2]
    assert [source.n_bytes(0), source.n_bytes(1)] == [len(" there"), 0]
    assert second.ids.tolist() == [*tokenizer.encode("x"), 2]


def test_a_large_vocabulary_has_wider_ids() -> None:
    assert shards.id_type(1 << 16).itemsize == 2
    assert shards.id_type((1 << 16) + 1).itemsize == 4


def test_several_files_of_ids(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD_TOKENS", 50)
    folder = made(tmp_path, TEXTS, mistral("v1"))
    assert len(list(folder.glob("train-*.tokens.bin"))) > 3
    cut, one = TextSource(folder, mistral("v1"), seq_len=16), TextSource(whole, mistral("v1"), seq_len=16)
    assert len(cut) == len(one)
    assert all((cut.example(i).ids == one.example(i).ids).all() for i in range(len(one)))


def test_processes_change_nothing(whole: Path, tmp_path: Path) -> None:
    folder = made(tmp_path, TEXTS, mistral("v1"), n_workers=2)
    assert sorted(file.name for file in folder.iterdir()) == sorted(file.name for file in whole.iterdir())
    for file in folder.iterdir():
        assert file.read_bytes() == (whole / file.name).read_bytes()


def documents(folder: Path, part: str) -> set[str]:
    source = TextSource(folder, mistral("v1"), seq_len=10_000, part=part)
    return {mistral("v1").decode(source.example(index).ids) for index in range(len(source))}


def test_the_same_documents_are_held_out_in_any_company(tmp_path: Path) -> None:
    folder = made(tmp_path, TEXTS, mistral("v1"), reading=Reading(holdout=0.2))
    held_out, trained = documents(folder, "heldout"), documents(folder, "train")
    assert held_out.isdisjoint(trained)
    assert held_out | trained == {text for text in TEXTS if not text.isspace()}
    assert 0.05 < len(held_out) / len(TEXTS) < 0.4
    more = [*(f"Another one, {n}" for n in range(30)), *reversed(TEXTS)]
    wider = made(tmp_path, more, mistral("v1"), reading=Reading(holdout=0.2))
    assert documents(wider, "heldout") & set(TEXTS) == held_out


def test_nothing_to_hold_out_is_said_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"0 of 1 documents would be held out with holdout=0\.01"):
        made(tmp_path, ["only one"], mistral("v1"), reading=Reading(holdout=0.01))
    with pytest.raises(InvalidInputError, match="holdout must be from 0 to below 1"):
        Reading(holdout=1.5)
    with pytest.raises(InvalidInputError, match="no text in them"):
        made(tmp_path, ["", " "], mistral("v1"))
    with pytest.raises(InvalidInputError, match="no documents in the part 'heldout'"):
        TextSource(made(tmp_path, ["x"], mistral("v1")), mistral("v1"), seq_len=4, part="heldout")


def test_a_folder_of_the_same_texts_is_left_alone(tmp_path: Path) -> None:
    file = written(tmp_path, TEXTS)
    first = prepare([file], mistral("v1"), tmp_path / "shards")
    stamp = (tmp_path / "shards" / shards.META).stat().st_mtime_ns
    again = prepare([file], mistral("v1"), tmp_path / "shards")
    assert (first.was_there, again.was_there, again.meta) == (False, True, first.meta)
    assert (tmp_path / "shards" / shards.META).stat().st_mtime_ns == stamp
    file.write_text(file.read_text() + '\n{"text": "one more"}')
    with pytest.raises(StorageError, match="exists already"):
        prepare([file], mistral("v1"), tmp_path / "shards")
    other = prepare([file], mistral("v1"), tmp_path / "shards", overwrite=True)
    assert other.count("train", "documents") == first.count("train", "documents") + 1


def test_a_damaged_folder_is_made_again_where_that_is_asked_for(tmp_path: Path) -> None:
    """As the error of a damaged folder advises."""
    file = written(tmp_path, TEXTS)
    prepare([file], mistral("v1"), tmp_path / "shards")
    (tmp_path / "shards" / shards.tokens_file("train", 0)).unlink()
    with pytest.raises(InvalidInputError, match=r"prepare the folder again \(`circius data prepare --force`\)"):
        shards.Shards(tmp_path / "shards", mistral("v1"))
    assert not prepare([file], mistral("v1"), tmp_path / "shards", overwrite=True).was_there
    assert len(shards.Shards(tmp_path / "shards", mistral("v1"))) > 0


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("fine")
    (tmp_path / "c.txt").write_bytes(b"\xff")
    with pytest.raises(InvalidInputError, match=r"c\.txt: not UTF-8"):
        prepare([tmp_path / "b.txt", tmp_path / "c.txt"], mistral("v1"), tmp_path / "shards")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["b.txt", "c.txt"]


def test_repetitions_are_counted(tmp_path: Path) -> None:
    prepared = prepare([written(tmp_path, ["a", "b", "a", "a"])], mistral("v1"), tmp_path / "shards")
    assert prepared.meta["repeated"] == 2


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    prepare([written(tmp_path, TEXTS)], mistral("v1"), tmp_path / "shards", on_progress=lambda *at: seen.append(at))
    assert seen[-1][0] == seen[-1][1] == sum(len(text.encode()) for text in TEXTS if not text.isspace())


def test_shards_of_another_tokenizer(whole: Path) -> None:
    with pytest.raises(InvalidInputError, match="holds ids of another tokenizer"):
        TextSource(whole, mistral("v3"), seq_len=8)


def test_one_tokenizer_has_one_fingerprint_in_any_file(demo_gguf: Path, tmp_path: Path) -> None:
    embedded = write_gguf(tmp_path / "model.gguf", gguf_fields(FILES["v1"]))
    assert fingerprint(load_tokenizer(embedded)) == fingerprint(mistral("v1"))
    export_tokenizer(demo_gguf, tmp_path / "folder")
    assert fingerprint(load_tokenizer(tmp_path / "folder")) == fingerprint(load_tokenizer(demo_gguf))
    write_byte_tokenizer(tmp_path / "bytes")
    names = [fingerprint(load_tokenizer(path)) for path in (tmp_path / "bytes", embedded, FILES["v2"], FILES["v3"])]
    assert len(set(names)) == 4


def test_other_ends_of_documents(tmp_path: Path) -> None:
    shutil.copy(FILES["v1"], tmp_path / "tokenizer.model")
    (tmp_path / "tokenizer_config.json").write_text('{"add_bos_token": false}')
    folder = made(tmp_path, ["x"], mistral("v1"))
    with pytest.raises(InvalidInputError, match=r"begins and ends documents with 1 and 2, .* with None and 2"):
        TextSource(folder, load_tokenizer(tmp_path), seq_len=8)


@pytest.mark.parametrize("name", ["train-00000.tokens.bin", "train.documents.bin"])
def test_damaged_folders(whole: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(whole, tmp_path / "shards")
    (folder / name).write_bytes((folder / name).read_bytes()[:-2])
    with pytest.raises(InvalidInputError, match=rf"{name} has \d+ bytes, and \d+ are expected"):
        TextSource(folder, mistral("v1"), seq_len=8)
    (folder / name).unlink()
    with pytest.raises(InvalidInputError, match=rf"{name} is missing"):
        TextSource(folder, mistral("v1"), seq_len=8)


def test_folders_that_are_none(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"no meta\.json, so this is no folder of token shards"):
        TextSource(tmp_path, mistral("v1"), seq_len=8)
    (tmp_path / "meta.json").write_text('{"format": "other"}')
    with pytest.raises(InvalidInputError, match="says nothing of circius token shards"):
        TextSource(tmp_path, mistral("v1"), seq_len=8)
    (tmp_path / "meta.json").write_text(json.dumps({**shards.read_meta(whole), "version": 9}))
    with pytest.raises(InvalidInputError, match="version 9, but 1 is what is read here"):
        TextSource(tmp_path, mistral("v1"), seq_len=8)
    with pytest.raises(InvalidInputError, match="part 'test' is not known: train, heldout"):
        TextSource(whole, mistral("v1"), seq_len=8, part="test")
    with pytest.raises(InvalidInputError, match="seq_len must be 2 or more, got 1"):
        TextSource(whole, mistral("v1"), seq_len=1)


class _Lossy(type(mistral("v1"))):  # type: ignore[misc]
    """A tokenizer that loses the last character, as one without byte fallback may."""

    def encode(self, text: str, **options: Any) -> list[int]:
        ids: list[int] = super().encode(text[:-1], **options)
        return ids


def test_a_tokenizer_that_changes_texts_is_refused(tmp_path: Path) -> None:
    lossy = _Lossy(mistral("v1").model, source=FILES["v1"])  # type: ignore[attr-defined]
    with pytest.raises(InvalidInputError, match=r"texts\.jsonl:1: .* does not give the text back as it is"):
        made(tmp_path, ["abc"], lossy)


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = load_tokenizer(FILES["v1"])
    monkeypatch.setattr(endless, "eos_ids", frozenset())
    with pytest.raises(TokenizerError, match="names no end-of-sequence token"):
        made(tmp_path, ["abc"], endless)


def test_an_encoding_process_that_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = load_tokenizer(FILES["v1"])
    monkeypatch.setattr(gone, "source", tmp_path / "nowhere.model")
    with pytest.raises(CirciusError, match="a process that encodes texts came to an end"):
        made(tmp_path, ["abc"], gone, n_workers=2)


def test_ids_are_memory_mapped(whole: Path) -> None:
    source = TextSource(whole, mistral("v1"), seq_len=8)
    assert all(isinstance(one, np.memmap) for one in source._shards._maps)
