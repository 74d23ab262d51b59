"""`circius data` and `circius tokenizer`, as a shell runs them: from raw texts to what a training reads."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import circius, fails, one_object, succeed

HI = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there"}]
CHAT: list[dict[str, Any]] = [
    {"messages": HI, "id": 1},
    {"messages": [*HI, {"role": "user", "content": "x"}]},
    {"messages": HI[:1]},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts, conversations, and a vocabulary that was trained on the texts."""
    folder = tmp_path_factory.mktemp("data")
    texts = [{"text": f"On day {n} the wind called mistral blew over hill {n % 37}. " * 3} for n in range(300)]
    (folder / "texts.jsonl").write_text("\n".join(map(json.dumps, texts)))
    (folder / "chat.jsonl").write_text("\n".join(map(json.dumps, CHAT)))
    arguments = ["--vocab-size=400", "--chat=v3", f"--out={folder / 'tokenizer'}"]
    assert succeed("tokenizer", "train", folder / "texts.jsonl", *arguments) == f"{folder / 'tokenizer'}\n"
    return folder


def test_the_trained_vocabulary_is_at_home_in_the_other_verbs(folder: Path) -> None:
    shown = one_object("tokenize", folder / "tokenizer", "the wind", "--chat")
    assert shown["ids"][:2] == [1, 3]
    assert shown["pieces"][-1] == "[/INST]"
    assert "exists already" in fails(
        "tokenizer", "train", folder / "texts.jsonl", "--vocab-size=400", f"--out={folder / 'tokenizer'}", code=2
    )


def test_check_lists_problems_and_mends(folder: Path) -> None:
    corrected = folder / "corrected.jsonl"
    arguments = ["--model", folder / "tokenizer", f"--write-corrected={corrected}", "--tokens=1000"]
    done = circius("data", "check", folder / "chat.jsonl", *arguments)
    assert done.returncode == 1, done.stderr
    assert f"{folder / 'chat.jsonl'}:2: messages[2]: the conversation ends with a user message" in done.stdout
    assert f"{folder / 'chat.jsonl'}:3: messages[0]: the conversation ends with a user message" in done.stdout
    assert f"{folder / 'chat.jsonl'}:2: mended: 1 message after the last answer was left out" in done.stdout
    assert "lengths in tokens" in done.stdout
    assert "epochs" in done.stdout
    assert "keys that training takes no notice of: id (1)" in done.stderr
    lines = corrected.read_text().splitlines()
    assert lines[0] == json.dumps(CHAT[0])
    assert json.loads(lines[1])["messages"] == HI
    clean = one_object("data", "check", corrected, "--model", folder / "tokenizer")
    assert (clean["problems"], clean["total"]["read"], clean["total"]["examples"]) == ([], 2, 2)
    assert 0 < clean["total"]["learnt"] < clean["total"]["tokens"]
    assert sum(one["count"] for one in clean["lengths"]) == 2


def test_show_marks_what_is_learnt(folder: Path) -> None:
    shown = succeed("data", "show", folder / "chat.jsonl", "--model", folder / "tokenizer", "-n", "1")
    assert "<s>[INST] Hi[/INST]⟦ Hello there</s>⟧" in shown
    [example] = one_object("data", "show", folder / "chat.jsonl", "--model", folder / "tokenizer", "-n", "1")[
        "examples"
    ]
    listed = succeed("data", "show", folder / "chat.jsonl", "--model", folder / "tokenizer", "-n", "1", "--ids")
    rows = [line.split() for line in listed.splitlines()[2:] if line]
    assert [int(row[0]) for row in rows] == example["ids"]
    assert [row[-1] == "learnt" for row in rows] == example["learnt"]


def test_prepare_and_do_it_again(folder: Path) -> None:
    arguments = ["--tokenizer", folder / "tokenizer", f"--out={folder / 'shards'}", "--holdout=0.1"]
    made = one_object("data", "prepare", folder / "texts.jsonl", *arguments)
    assert made["train"]["documents"] + made["heldout"]["documents"] == 300
    assert made["heldout"]["documents"] > 5
    meta = json.loads((folder / "shards" / "meta.json").read_text())
    assert meta["tokenizer"] == made["tokenizer"]
    again = one_object("data", "prepare", folder / "texts.jsonl", *arguments)
    assert "nothing was done" in again["notes"][0]
    assert {**again, "notes": []} == {**made, "notes": []}
    shown = succeed("data", "prepare", folder / "texts.jsonl", *arguments, "--force")
    assert "heldout" in shown


def test_a_group_without_a_verb_shows_its_verbs() -> None:
    for group, verb in (("data", "prepare"), ("tokenizer", "train")):
        assert verb in succeed(group)
    assert "No such command 'sing'" in fails("data", "sing", code=2)


def test_errors_are_one_line(folder: Path) -> None:
    nowhere, own = folder / "nowhere.txt", folder / "tokenizer"
    for verb in (["check", nowhere, "--model", own], ["prepare", nowhere, "-t", own, f"--out={folder / 'x'}"]):
        assert "no such file or folder" in fails("data", *verb, code=2)
    assert "--model" in fails("data", "check", folder / "chat.jsonl", code=2)
