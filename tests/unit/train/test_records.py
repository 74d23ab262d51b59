"""Records of every kind of file, and the line of every fault."""

import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from circius.base.errors import InvalidInputError
from circius.train.records import Problem, Record, read_records

ROWS = [{"messages": [1], "né": "🦜"}, {"b": None}, {"c": {"d": [2.5]}}]


def read(file: Path) -> tuple[list[Record], list[str]]:
    problems: list[Problem] = []
    records = list(read_records(file, problems.append))
    return records, [f"{problem.place.line}: {problem.message}" for problem in problems]


def lines_of(records: list[Record]) -> list[int]:
    return [record.place.line for record in records]


@pytest.mark.parametrize("packed", [False, True])
def test_jsonl(tmp_path: Path, packed: bool) -> None:
    text = "\ufeff" + "\n".join([json.dumps(ROWS[0]), "", "  " + json.dumps(ROWS[1]) + "\r", json.dumps(ROWS[2])])
    file = tmp_path / "rows.anything"
    file.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    records, problems = read(file)
    assert [record.fields for record in records] == ROWS
    assert (lines_of(records), problems) == ([1, 3, 4], [])
    assert [json.loads(record.raw or "") for record in records] == ROWS


@pytest.mark.parametrize("packed", [False, True])
def test_json_arrays(tmp_path: Path, packed: bool) -> None:
    text = "\n [" + json.dumps(ROWS[0]) + ",\n\n" + json.dumps(ROWS[1], indent=2) + ", " + json.dumps(ROWS[2]) + "\n]\n"
    file = tmp_path / "rows.json"
    file.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    records, problems = read(file)
    assert [record.fields for record in records] == ROWS
    assert (lines_of(records), problems) == ([2, 4, 6], [])


def test_parquet(tmp_path: Path) -> None:
    rows = [{"text": "é", "n": 1}, {"text": "b", "n": 2}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    records, problems = read(tmp_path / "rows.parquet")
    assert ([record.fields for record in records], lines_of(records), problems) == (rows, [1, 2], [])
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "rows.parquet").read_bytes()[:-9])
    with pytest.raises(InvalidInputError, match=r"cut\.parquet: damaged, or no parquet file"):
        read(tmp_path / "cut.parquet")


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(InvalidInputError, match=r"pip install 'circius\[parquet\]'"):
        read(tmp_path / "rows.parquet")


def test_faults_in_jsonl_do_not_end_it(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"a": 1}\n{"a": }\n[1]\n{"a": "\xff"}\n' + b"[" * 100_000 + b'\n{"a": 2}')
    records, problems = read(file)
    assert [(record.place.line, record.fields) for record in records] == [(1, {"a": 1}), (6, {"a": 2})]
    assert problems == [
        '2: not JSON: Expecting value at column 7; a line of a jsonl file is an object such as {"messages": [...]}',
        '3: a list, where an object such as {"messages": [...]} is expected',
        "4: not UTF-8: byte 0xff at offset 7; convert the file to UTF-8",
        '5: not JSON: nested too deeply; a line of a jsonl file is an object such as {"messages": [...]}',
    ]


@pytest.mark.parametrize(
    ("text", "n_read", "problem"),
    [
        ('[{"a": 1},\n 5,\n{"a": 2}]', 2, "2: a number, where an object"),
        ('[{"a": 1},\n{"a" 2}]', 1, "2: not JSON: Expecting ':' delimiter at column 6; nothing after it can be read"),
        ('[{"a": 1}\n{"a": 2}]', 1, "2: not JSON: a comma or the end of the array, ], is expected at column 1"),
        ('[{"a": 1}', 1, "1: not JSON: a comma or the end of the array"),
        ('[{"a": 1}]\n]', 1, "2: not JSON: something follows the end of the array at column 1"),
        ('{\n"a": 1\n}', 0, "1: an object that goes on over several lines"),
        ('[{"a": 1},\n' + "9" * 5000 + "]", 1, "1: not JSON: a number of too many digits; nothing after it"),
        ('{"a": ' + "9" * 5000 + '}\n{"a": 1}', 1, "1: not JSON: a number of too many digits; a line of"),
    ],
)
def test_faults_in_json(tmp_path: Path, text: str, n_read: int, problem: str) -> None:
    (tmp_path / "rows.json").write_text(text)
    records, problems = read(tmp_path / "rows.json")
    assert len(records) == n_read
    assert len(problems) == 1
    assert problems[0].startswith(problem)


def test_an_empty_array_and_an_empty_file(tmp_path: Path) -> None:
    for text in ("[]", "[ \n ]", "", "\n\n"):
        (tmp_path / "rows.json").write_text(text)
        assert read(tmp_path / "rows.json") == ([], [])


def test_the_first_problem_of_an_array_is_said_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text("[5]")
    with pytest.raises(InvalidInputError, match=r"rows\.json:1: a number, where an object"):
        list(read_records(tmp_path / "rows.json"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"cannot read .*nowhere\.jsonl: No such file"):
        read(tmp_path / "nowhere.jsonl")
    with pytest.raises(InvalidInputError, match="Is a directory"):
        read(tmp_path)
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b'{"a": 1}\n' * 5000)[:-20])
    with pytest.raises(InvalidInputError, match=r"cut\.gz: the gzip file is damaged or cut short"):
        read(tmp_path / "cut.gz")


def test_without_a_listener_the_first_problem_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n3\n')
    with pytest.raises(InvalidInputError, match=r"rows\.jsonl:2: a number, .*circius data check"):
        list(read_records(tmp_path / "rows.jsonl"))
