"""Bad input and bad luck: one line, the right exit code, nothing lost."""

import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.processes import COMMAND, ENDLESS, TIMEOUT_S, TINY, circius, environment, fails

FULL = Path("/dev/full")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--temperature=-1"], "temperature must be a number, 0 or more, got -1.0"),
        (["--max-tokens=0"], "max_tokens must be a whole number, 1 or more"),
        (["--top-p=1.5"], "top_p"),
        (["--min-p=-0.1"], "min_p"),
        (["--logit-bias=nonsense"], "ID=BIAS"),
        (["--system=Be brief.", "--raw"], "--raw"),
        (["--logprobs=2"], "--json"),
        (["-n", "2"], "temperature"),
        (["--window=0"], "--window must be a positive whole number"),
    ],
)
def test_options_are_checked_before_the_model_is_looked_for(arguments: list[str], said: str) -> None:
    assert said in fails("generate", "no-such-model", "hello", *arguments, code=2)


def test_an_unknown_model_comes_with_a_suggestion(tmp_path: Path) -> None:
    assert "did you mean demo?" in fails("generate", "demoo", "hello", code=2, home=tmp_path)
    assert "circius pull mistral-7b-v0.1" in fails("chat", "mistral-7b-v0.1", code=2, home=tmp_path)


def test_texts_that_are_not_utf8(tmp_path: Path) -> None:
    file = tmp_path / "latin1.txt"
    file.write_bytes(b"caf\xe9")
    assert "byte 0xff at offset 2" in fails("generate", "model", b"ab\xffc", code=2)
    assert "byte 0xff at offset 2" in fails("generate", "model", code=2, stdin=b"ab\xffc")
    assert f"{file} is not UTF-8 text: byte 0xe9 at offset 3" in fails("generate", "model", "--file", file, code=2)


def test_texts_that_are_not_there(tmp_path: Path) -> None:
    missing = tmp_path / "missing.txt"
    assert "No such file" in fails("generate", "model", "--file", missing, code=2)
    assert "Is a directory" in fails("score", "model", "--file", tmp_path, code=2)
    assert "no text given" in fails("generate", "model", code=2)
    assert "both a text and --file" in fails("generate", "model", "text", "--file", missing, code=2)


def test_a_prompt_over_the_context_names_both_numbers(tiny: Path) -> None:
    said = fails("generate", tiny, "x" * 400, "--threads=1", code=2)
    assert "401" in said
    assert "256" in said


def test_a_truncated_checkpoint_is_named(tiny: Path, tmp_path: Path) -> None:
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "model.safetensors" in fails("generate", tmp_path, "hello", code=1)


def test_writers_refuse_what_is_in_the_way(tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    assert "--force" in fails("init", tmp_path, *TINY, code=2)
    assert "--vocab" in fails("init", tmp_path / "new", "--vocab=100", code=2)
    assert "n_heads" in fails("init", tmp_path / "new", "--heads=3", code=2)
    assert "v0.9" in fails("init", tmp_path / "new", "--preset=v0.9", code=2)
    assert [file.name for file in tmp_path.iterdir()] == ["precious.txt"]


def test_force_replaces_no_folder_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    assert str(tmp_path) in fails("init", tmp_path, *TINY, "--force", code=1)
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_a_reader_that_leaves_ends_the_answer_in_silence(tiny: Path) -> None:
    command = [*COMMAND, "generate", str(tiny), "hello", *ENDLESS, "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(10)
        process.stdout.close()
        assert process.wait(TIMEOUT_S) == 1
        assert process.stderr.read() == b""


def test_ctrl_c_stops_the_answer_and_shows_what_there_is(tiny: Path) -> None:
    command = [*COMMAND, "generate", str(tiny), "hello", *ENDLESS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        assert process.stdout.read(10)
        process.send_signal(signal.SIGINT)
        text, said = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 130
        assert text.endswith(b"\n")
        assert said.decode().rstrip().endswith("stopped by Ctrl-C")
        assert b"Traceback" not in said


@pytest.mark.skipif(not FULL.exists(), reason="/dev/full is a device of Linux")
def test_a_full_disk_is_one_line() -> None:
    with FULL.open("wb") as full:
        done = subprocess.run(
            [*COMMAND, "info", "v0.1"], stdout=full, stderr=subprocess.PIPE, env=environment(), timeout=60, check=False
        )
    assert done.returncode == 1
    assert done.stderr == b"circius: error: the output could not be written: No space left on device\n"


def test_pull_wants_a_name_that_can_be_pulled(tmp_path: Path) -> None:
    assert "--list" in fails("pull", code=2)
    assert "neither an alias nor a Hub id" in fails("pull", "no such name", code=2, home=tmp_path)
    assert circius("pull", "demo", "--list").returncode == 2
