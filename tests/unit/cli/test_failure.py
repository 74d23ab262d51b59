"""Every error is one line, and says whose fault it is."""

import errno

import pytest
import torch

from circius.base.errors import CheckpointError, ParamsError, StorageError
from circius.cli.failure import EXIT_INTERRUPTED, report


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ParamsError("top_p is\nwrong"), 2, "top_p is wrong"),
        (CheckpointError("damaged"), 1, "damaged"),
        (StorageError("full"), 1, "full"),
        (MemoryError(), 1, "out of memory: choose a smaller model"),
        (torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate"), 1, "out of memory: choose"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 1, "out of memory: choose"),
        (FileNotFoundError(errno.ENOENT, "No such file", "talk.json"), 1, "talk.json: No such file"),
        (KeyError("lost"), 1, "unexpected KeyError: 'lost' (a defect in circius"),
    ],
)
def test_one_line(error: Exception, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(error) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"circius: error: {said}")
    assert shown.err.count("\n") == 1


def test_ctrl_c_needs_no_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(KeyboardInterrupt()) == EXIT_INTERRUPTED
    assert capsys.readouterr().err == ""


def test_a_traceback_is_shown_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(ParamsError("wrong"), show_traceback=True) == 2
    assert "ParamsError: wrong" in capsys.readouterr().err
