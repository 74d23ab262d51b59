"""Journals: what was appended is there after a kill, in one run's file and no other's."""

import json
from pathlib import Path

import pytest

from circius.base.errors import InvalidInputError, StorageError
from circius.base.journal import Journal, read_journal

HEADER = {"model": "tiny", "seed": 3}


def test_a_second_run_finds_what_the_first_has_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "run.jsonl"
    with Journal(path, HEADER) as first:
        assert first.rows == []
        first.append({"id": 1, "text": "é\nline"})
    with Journal(path, HEADER) as second:
        assert second.rows == [{"id": 1, "text": "é\nline"}]
        second.append({"id": 2})
    assert read_journal(path) == (HEADER, [{"id": 1, "text": "é\nline"}, {"id": 2}])


def test_a_line_that_was_cut_off_is_dropped_and_written_again(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with Journal(path, HEADER) as own:
        own.append({"id": 1})
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"id": 2, "te')
    assert read_journal(path)[1] == [{"id": 1}]
    with Journal(path, HEADER) as own:
        assert own.rows == [{"id": 1}]
        own.append({"id": 3})
    assert path.read_bytes() == whole + b'{"id": 3}\n'


def test_a_file_whose_header_was_cut_off_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(json.dumps(HEADER).encode()[:-4])
    with Journal(path, HEADER) as own:
        assert own.rows == []
    assert read_journal(path) == (HEADER, [])


@pytest.mark.parametrize("other", [{"model": "tiny", "seed": 4}, {"model": "tiny"}, {**HEADER, "more": 1}])
def test_another_runs_file_is_refused_with_the_difference(tmp_path: Path, other: dict[str, object]) -> None:
    path = tmp_path / "run.jsonl"
    with Journal(path, other):
        pass
    before = path.read_bytes()
    with pytest.raises(InvalidInputError, match=r"belongs to another run: its (seed|more) is"), Journal(path, HEADER):
        pass
    assert path.read_bytes() == before


def test_what_is_no_journal_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello\nworld\n")
    with pytest.raises(InvalidInputError, match=r"notes\.txt:1 is not a JSON object"), Journal(path, HEADER):
        pass
    assert path.read_text() == "hello\nworld\n"


def test_two_runs_do_not_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with Journal(path, HEADER), pytest.raises(StorageError, match="another run is writing"), Journal(path, HEADER):
        pass
