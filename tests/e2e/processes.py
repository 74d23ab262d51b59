"""Real `circius` processes, run the way a shell runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "circius"]
TIMEOUT_S = 120

_SHAPE = ["--layers=2", "--dim=64", "--heads=4", "--kv-heads=2", "--head-dim=16", "--hidden-dim=128"]
TINY = [*_SHAPE, "--vocab=512", "--window=32", "--context=256", "--dtype=float32"]

ENDLESS = ["--max-tokens=1000000", "--context=2000000", "--logit-bias=2=-1000", "--threads=1"]
"""A windowed model answers until it is stopped: the end token is forbidden, the memory constant."""


def environment() -> dict[str, str]:
    """The process's environment, with one thread, no colour, and a terminal that need not answer questions."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "PROMPT_TOOLKIT_NO_CPR": "1", "COLUMNS": "200"}


def circius(
    *arguments: str | bytes | Path, stdin: bytes = b"", home: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end; stdout and stderr come apart, as text."""
    env = environment() | ({"CIRCIUS_HOME": str(home)} if home else {})
    done = subprocess.run(
        [*COMMAND, *arguments], input=stdin, capture_output=True, env=env, timeout=TIMEOUT_S, check=False
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8")
    )


def succeed(*arguments: str | Path, stdin: bytes = b"") -> str:
    """What the command prints; fails if the command does."""
    done = circius(*arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout


def one_object(*arguments: str | Path, stdin: bytes = b"") -> dict[str, Any]:
    """The object that the command prints with --json: one line, and nothing else on either stream."""
    done = circius(*arguments, "--json", stdin=stdin)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    fields = json.loads(done.stdout)
    assert isinstance(fields, dict)
    assert isinstance(fields["notes"], list)
    return fields


def fails(*arguments: str | bytes | Path, code: int, stdin: bytes = b"", home: Path | None = None) -> str:
    """The one line that the failing command says; nothing is on stdout, and no traceback anywhere."""
    done = circius(*arguments, stdin=stdin, home=home)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("circius: error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr
