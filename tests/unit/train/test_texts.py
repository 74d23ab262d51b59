"""Documents out of text files."""

import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from circius.base.errors import InvalidInputError
from circius.train import texts as module
from circius.train.records import Problem
from circius.train.texts import read_documents, text_files


def read(file: Path, **options: str) -> list[tuple[int, str]]:
    return [(document.place.line, document.text) for document in read_documents(file, **options)]


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.text.gz", "A.TXT"])
def test_a_plain_text_is_one_document_to_the_byte(tmp_path: Path, name: str) -> None:
    text = "one\r\ntwo\n\nthree \u2028 é🦜"
    raw = b"\xef\xbb\xbf" + text.encode()
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    assert read(tmp_path / name) == [(1, text)]


def test_separators(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("a\nb\n<|endoftext|>\n\n<|endoftext|>\nc")
    assert read(file, separator="<|endoftext|>") == [(1, "a\nb\n"), (6, "c")]
    assert read(file, separator="") == [(1, "a\nb\n<|endoftext|>\n"), (5, "<|endoftext|>\nc")]
    assert read(file, separator="no such line") == [(1, file.read_text())]
    with pytest.raises(InvalidInputError, match=r"a\.txt:3: a line '<\|endoftext\|>', which looks like the end"):
        read(file)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.parquet"])
def test_records(tmp_path: Path, name: str) -> None:
    rows = [{"text": "a", "title": "t"}, {"text": " \n"}, {"text": "c\n"}]
    if name.endswith("parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / name)
    else:
        lines = json.dumps(rows, indent=1) if name == "a.json" else "\n".join(map(json.dumps, rows))
        (tmp_path / name).write_bytes(gzip.compress(lines.encode()) if name.endswith("gz") else lines.encode())
    assert [text for _, text in read(tmp_path / name)] == ["a", "c\n"]


def test_the_texts_key(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"content": "a", "title": "t"}\n{"title": "u"}\n{"content": null}\n{"content": "\\ud800"}\n')
    problems: list[Problem] = []
    assert [one.text for one in read_documents(file, on_problem=problems.append)] == ["a"]
    assert [problem.place.line for problem in problems] == [2, 3, 4]
    assert problems[0].message.startswith("no 'text' or 'content'; it has 'title'")
    assert problems[1].message == "'content' is null, where text is expected"
    assert "half a surrogate pair" in problems[2].message
    assert [one.text for one in read_documents(file, field="title", on_problem=problems.append)] == ["t", "u"]


def test_documents_too_large_to_encode_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DOCUMENT_BYTES", 1000)
    (tmp_path / "a.txt").write_text("é" * 450 + "\n" + "word " * 30)
    with pytest.raises(InvalidInputError, match=r"a\.txt:1: a document of .* say what separates documents"):
        read(tmp_path / "a.txt")
    (tmp_path / "b.txt").write_text("x" * 3000)  # one line, which is not read to its end
    with pytest.raises(InvalidInputError, match=r"b\.txt:1: a document of"):
        read(tmp_path / "b.txt")
    (tmp_path / "c.jsonl").write_text(json.dumps({"text": "x" * 1001}))
    with pytest.raises(InvalidInputError, match=r"c\.jsonl:1: a document of .* cut it into several"):
        read(tmp_path / "c.jsonl")


def test_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"fine\nfa\xe7ade\n")
    with pytest.raises(InvalidInputError, match="not UTF-8: byte 0xe7"):
        read(tmp_path / "a.txt")
    (tmp_path / "b.txt").write_bytes("é".encode()[:1])
    with pytest.raises(InvalidInputError, match="not UTF-8: byte 0xc3"):
        read(tmp_path / "b.txt")


def test_which_files(tmp_path: Path) -> None:
    for name in ("b.txt", "a.jsonl.gz", "sub/c.parquet", "weights.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [file.name for file in text_files([tmp_path])] == ["a.jsonl.gz", "b.txt", "c.parquet"]
    with pytest.raises(InvalidInputError, match=r"weights\.bin: no text file by its name; \.txt"):
        text_files([tmp_path / "weights.bin"])
    with pytest.raises(InvalidInputError, match=r"b\.txt was given twice"):
        text_files([tmp_path, tmp_path / "b.txt"])
    with pytest.raises(InvalidInputError, match="no such file or folder"):
        text_files([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match="no text files in this folder"):
        text_files([tmp_path / "empty"])
