"""`circius eval` and `circius compare` as processes: figures, runs that are killed, and what is refused."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from circius.engine.llm import LLM
from circius.evals.engine_model import EngineModel
from circius.evals.questions import Exam
from circius.evals.record import RunFolder
from circius.evals.runner import run
from circius.evals.task import Sources
from circius.evals.tasks import make_task
from circius.evals.tasks.settings import Settings
from tests.e2e.processes import COMMAND, TINY, circius, environment, fails, one_object, succeed
from tests.serving import MODEL, loader, serving
from tests.unit.evals.small_data import small_store

TEXT = "".join(f"Line {n}: the sea is {n * n} deep, and nobody swims in it.\n" for n in range(600))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bytes for tokens, and a context that takes llama.cpp's chunks."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    succeed("init", folder, *[option for option in TINY if "context" not in option], "--context=2048")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_store(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "sea.txt"
    path.write_text(TEXT)
    return path


def _run(model: EngineModel, tasks: list[str], sources: Sources, out: Path) -> dict[str, Any]:
    """A run in this process."""
    return run(model, [Exam.of(make_task(name, Settings()), sources) for name in tasks], RunFolder(out))


def test_a_run_gives_a_table_a_report_and_lines(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ["--task=openbookqa", "--task=winogrande", "--data", data, "--out", out, "--threads=1"]
    table = succeed("eval", model, *options)
    assert [line.split()[0] for line in table.splitlines()] == ["task", "openbookqa", "winogrande"]
    assert "75.3" in table
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    assert len((out / "items" / "winogrande.jsonl").read_text().splitlines()) == 3
    again = one_object("eval", model, *options)
    assert again["tasks"]["winogrande"]["figures"]["raw"]["n"] == 3
    assert len(again["sessions"]) == 2
    assert again["sessions"][1]["n_answered"] == 0
    assert any("not those that circius knows" in note for note in again["notes"])


def test_a_run_that_is_killed_goes_on_where_it_was(model: Path, text: Path, tmp_path: Path) -> None:
    """The run that nothing disturbs is made in this process, so that it also shows that processes agree."""
    command = ["eval", model, "--text", text, "--out", tmp_path / "killed", "--threads=1"]
    undisturbed = EngineModel(LLM(model))
    _run(
        undisturbed, ["perplexity", "bits_per_byte"], Sources(text=text, tokens=undisturbed.tokens), tmp_path / "whole"
    )
    whole = {file.name: file.read_bytes() for file in (tmp_path / "whole" / "items").iterdir()}
    n_items = whole["perplexity.jsonl"].count(b"\n")
    grown = tmp_path / "killed" / "items" / "perplexity.jsonl"
    with subprocess.Popen([*COMMAND, *command], env=environment(), stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not (grown.is_file() and grown.stat().st_size):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
    n_before = grown.read_bytes().count(b"\n")
    assert 0 < n_before < n_items
    results = one_object(*command)
    assert {file.name: file.read_bytes() for file in (tmp_path / "killed" / "items").iterdir()} == whole
    first, second = results["sessions"]
    assert first["seconds"] is None
    assert second["n_answered"] == n_items - n_before + 1  # bits per byte is one item
    figures = json.loads((tmp_path / "whole" / "results.json").read_text())["tasks"]
    assert results["tasks"] == figures
    found = one_object("compare", tmp_path / "whole", tmp_path / "killed")["tasks"]
    assert found["perplexity"]["metric"] == "nll"
    assert found["perplexity"]["difference"] == 0


def test_runs_are_compared(model: Path, data: Path, tmp_path: Path) -> None:
    for out, window in (("wide", None), ("narrow", 4)):
        _run(EngineModel(LLM(model, window=window)), ["openbookqa"], Sources(home=data), tmp_path / out)
    table = succeed("compare", tmp_path / "wide", tmp_path / "narrow")
    assert "openbookqa  minus_unconditional" in table
    found = one_object("compare", tmp_path / "wide", tmp_path / "narrow")["tasks"]["openbookqa"]
    assert found["n"] == 3
    assert found["first"] + found["difference"] == pytest.approx(found["second"])
    assert "holds no results.json" in fails("compare", tmp_path / "wide", tmp_path / "nothing", code=2)


def test_a_model_behind_a_server_gets_the_same_figures(data: Path, tmp_path: Path) -> None:
    with serving(loader(tmp_path / "served")) as served:
        options = [
            "--task=openbookqa",
            "--task=winogrande",
            "--data",
            data,
            "--out",
            tmp_path / "far",
            "--concurrency=2",
        ]
        far = one_object("eval", MODEL, f"--endpoint={served.url}", *options)
        here = EngineModel(served.state.llm)
        near = _run(here, ["openbookqa", "winogrande"], Sources(home=data), tmp_path / "near")
    assert far["model"] == {"kind": "endpoint", "name": MODEL, "url": f"{served.url}/v1"}
    for name in ("openbookqa", "winogrande"):
        assert far["tasks"][name]["figures"] == near["tasks"][name]["figures"]


def test_prompts_are_shown_with_their_tokens(model: Path, data: Path) -> None:
    shown = succeed("eval", model, "--task=boolq", "--data", data, "--show-prompts")
    assert "Snow is white.\nQuestion: is snow white?\nAnswer:" in shown
    assert "-- tokens of the context\n1 " in shown
    prompts = one_object("eval", model, "--task=boolq", "--data", data, "--show-prompts")["prompts"]
    assert prompts["boolq"]["asks"][0]["continuations"] == [" no", " yes"]


def test_tasks_are_listed_without_a_model() -> None:
    listed = one_object("eval", "--list")
    assert {"paper", "quick"} <= set(listed["suites"])
    assert "hellaswag" in listed["tasks"]


@pytest.mark.parametrize(
    ("options", "code", "complaint"),
    [
        ([], 2, "name a MODEL"),
        (["MODEL", "--task=helaswag"], 2, "did you mean hellaswag"),
        (["MODEL", "--suite=everything"], 2, "no suite"),
        (["MODEL", "--task=perplexity"], 2, "--text FILE"),
        (["MODEL", "--task=piqa", "--data", "NOWHERE"], 1, "circius data eval piqa"),
        (["MODEL", "--task=gsm8k", "--temperature=0"], 2, "temperature above 0"),
        (["MODEL", "--key-env=X"], 2, "--key-env is for an --endpoint"),
        (["MODEL", "--task=piqa", "--data", "DATA", "--endpoint=host"], 2, "an endpoint is an address"),
        (["MODEL", "--task=piqa", "--data", "DATA", "--endpoint=http://h", "--key-env=NO_SUCH"], 2, "no such variable"),
        (["MODEL", "--endpoint=http://h", "--dtype=float16"], 2, "--dtype is for a model in this process"),
        (["MODEL", "--text", "NOWHERE/x", "--out", "NOWHERE/out"], 2, "cannot read"),
    ],
)
def test_what_is_wrong_is_said(
    options: list[str], code: int, complaint: str, model: Path, data: Path, tmp_path: Path
) -> None:
    places = {"MODEL": str(model), "DATA": str(data), "NOWHERE": str(tmp_path)}
    filled = ["/".join(places.get(part, part) for part in option.split("/")) for option in options]
    assert complaint in fails("eval", *filled, code=code)


def test_help_needs_no_torch() -> None:
    script = (
        "import sys; from circius.cli.main import run; run([sys.argv[1], '--help']); assert 'torch' not in sys.modules"
    )
    for verb in ("eval", "compare"):
        done = subprocess.run(
            [*COMMAND[:1], "-c", script, verb],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "Usage" in done.stdout
    assert circius("eval", "--list").returncode == 0
