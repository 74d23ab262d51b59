"""What the command says about itself, quickly and truly."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from circius.cli.reference import page
from tests.e2e.processes import COMMAND, circius, environment, fails, succeed

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
HEAVY = {"torch", "numpy", "transformers", "tokenizers", "huggingface_hub", "prompt_toolkit"}


@pytest.mark.quick
@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--help"], ["info", "v0.1"], ["pull", "--list"]])
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", *COMMAND[1:], *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60, check=True)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "circius" in imported
    assert not imported & HEAVY


@pytest.mark.quick
def test_version() -> None:
    assert succeed("--version") == f"circius {version('circius')}\n"


def test_the_script_is_installed() -> None:
    script = Path(sys.executable).with_name("circius")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"circius {version('circius')}\n"


def test_no_arguments_show_the_help() -> None:
    shown = succeed()
    for verb in ("pull", "info", "generate", "chat", "score", "bench", "convert", "init", "tokenize"):
        assert verb in shown


@pytest.mark.quick
def test_unknown_verbs_and_options_are_one_line() -> None:
    assert "'sing'" in fails("sing", code=2)
    assert "--sing" in fails("generate", "--sing", code=2)
    assert "MODEL" in fails("generate", code=2)
    assert "'abc'" in fails("generate", "x", "y", "--dtype=abc", code=2)


def test_traceback_shows_where() -> None:
    done = circius("--traceback", "info", "no-such-model")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "ModelNotFoundError" in done.stderr


@pytest.mark.quick
def test_the_page_says_what_the_program_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "docs/cli.md is out of date: run `make docs`"
