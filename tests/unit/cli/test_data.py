"""What the data verbs refuse before they read anything, and how an example is shown."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from circius.base.errors import CirciusError, InvalidInputError
from circius.cli import data_check, data_prepare, data_show, tokenizer_train
from circius.train.example import Example
from tests.vocabularies import FILES, mistral

HERE = Path(__file__)


@pytest.mark.parametrize(
    "given",
    [{"steps": 5}, {"step_tokens": 5}, {"tokens": 5, "steps": 5, "step_tokens": 5}],
)
def test_epochs_need_tokens_or_steps_with_their_size(given: dict[str, int]) -> None:
    with pytest.raises(InvalidInputError, match="give --tokens, or --steps and --step-tokens together"):
        data_check.command([HERE], str(FILES["v3"]), **given)


@pytest.mark.parametrize("given", [{"tokens": 0}, {"steps": 1, "step_tokens": -1}])
def test_epochs_need_positive_numbers(given: dict[str, int]) -> None:
    with pytest.raises(InvalidInputError, match="must be 1 or more"):
        data_check.command([HERE], str(FILES["v3"]), **given)


def written(folder: Path, name: str) -> Path:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text('{"text": "Hello"}\n')
    return folder / name


def test_corrected_files_need_places_of_their_own(tmp_path: Path) -> None:
    two = [written(tmp_path, "a/x.jsonl"), written(tmp_path, "b/x.json")]
    with pytest.raises(InvalidInputError, match="2 files are not corrected into one: name a folder"):
        data_check.command(two, str(FILES["v3"]), write_corrected=tmp_path / "out.jsonl", quiet=True)
    with pytest.raises(InvalidInputError, match="two of the files have the same name"):
        data_check.command(two, str(FILES["v3"]), write_corrected=tmp_path / "out", quiet=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize(
    ("command", "given", "complaint"),
    [
        (data_show.command, {"file": HERE, "model": "x", "count": 0}, "--count must be 1 or more, got 0"),
        (data_prepare.command, {"files": [HERE], "tokenizer": "x", "out": HERE, "jobs": 0}, "--jobs must be 1 or more"),
        (tokenizer_train.command, {"files": [HERE], "vocab_size": 500, "out": HERE.parent}, "exists already"),
        (
            tokenizer_train.command,
            {"files": [HERE], "vocab_size": 500, "out": Path("new"), "sample": 0},
            "--sample must be 1 or more",
        ),
        (tokenizer_train.command, {"files": [HERE], "vocab_size": 9, "out": Path("new")}, "vocab_size must be more"),
    ],
)
def test_options_that_cannot_be_met(command: Any, given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(CirciusError, match=complaint):
        command(**given, quiet=True)


def test_learnt_stretches_are_marked() -> None:
    ids = np.array([1, 3, *mistral("v3").encode("Hi\n"), 4, *mistral("v3").encode("Hé 🦜"), 2])
    learnt = np.arange(len(ids)) > ids.tolist().index(4)
    learnt[0] = True  # which no example predicts
    example = Example(ids, learnt)
    assert data_show.marked(example, mistral("v3")) == "<s>[INST] Hi\n[/INST]⟦ Hé 🦜</s>⟧"
    kinds = [(text, is_learnt, control) for text, is_learnt, control in data_show.stretches(example, mistral("v3"))]
    assert kinds == [
        ("<s>", False, True), ("[INST]", False, True), (" Hi\n", False, False), ("[/INST]", False, True),
        (" Hé 🦜", True, False), ("</s>", True, True),
    ]  # fmt: skip
