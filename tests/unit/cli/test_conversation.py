"""Saved conversations: back as they were, or refused with a reason."""

import json
from pathlib import Path

import pytest

from circius.base.errors import InvalidInputError, StorageError
from circius.cli.conversation import load_conversation, save_conversation
from circius.text import Message

TALK = [Message("system", "Be brief."), Message("user", "héllo\n[INST]"), Message("assistant", "")]


def test_a_conversation_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    save_conversation(path, TALK, model="demo")
    assert load_conversation(path) == TALK
    assert [file.name for file in tmp_path.iterdir()] == ["talk.json"]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    save_conversation(path, TALK, model="demo")
    with pytest.raises(UnicodeEncodeError):
        save_conversation(path, [Message("user", "\udcff")], model="demo")
    assert load_conversation(path) == TALK
    assert [file.name for file in tmp_path.iterdir()] == ["talk.json"]


def test_saving_nowhere_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        save_conversation(tmp_path / "missing" / "talk.json", TALK, model="demo")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "line 1"),
        ("[]", "lacks"),
        ('{"format": "circius-conversation", "version": 2}', "version 2"),
        ('{"format": "circius-conversation", "version": 1}', "no list of messages"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "talk.json"
    path.write_text(content)
    with pytest.raises(InvalidInputError, match=said):
        load_conversation(path)


@pytest.mark.parametrize("entry", ["hello", {"role": "tool", "content": "x"}, {"role": "user", "content": 3}])
def test_malformed_messages_are_counted(tmp_path: Path, entry: object) -> None:
    path = tmp_path / "talk.json"
    good = {"role": "user", "content": "x"}
    path.write_text(json.dumps({"format": "circius-conversation", "version": 1, "messages": [good, entry]}))
    with pytest.raises(InvalidInputError, match="message 2"):
        load_conversation(path)
