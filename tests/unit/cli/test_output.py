"""Notes come once, before what follows them, and inside the object for machines."""

import json

import pytest

from circius.cli.output import Output, visible


def test_notes_wait_for_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    output.note("a choice")
    output.note("a choice")
    assert capsys.readouterr().err == ""
    output.line("the result")
    output.line("more")
    shown = capsys.readouterr()
    assert shown.out == "the result\nmore\n"
    assert shown.err == "note: a choice\n"


def test_machines_find_the_notes_in_the_object(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=True)
    output.note("a choice")
    output.emit({"text": "é\n"})
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"text": "é\n", "notes": ["a choice"]}
    assert shown.out.count("\n") == 1
    assert shown.err == ""


def test_quiet_keeps_the_result_alone(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(quiet=True)
    output.note("a choice")
    output.dim("statistics")
    output.line("the result")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("the result\n", "")
    output.reply("what was asked for")
    assert capsys.readouterr().err == "what was asked for\n"


def test_long_lines_stay_whole_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    Output().dim("word " * 100)
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "shown"), [("a\tb\nc", "a\tb\nc"), ("\x1b]0;x\x07", "␛]0;x␇"), ("\x9b1m", "\ufffd1m")]
)
def test_a_model_cannot_drive_the_terminal(text: str, shown: str) -> None:
    assert visible(text) == shown
