"""`circius quantize`, and what its models do."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.processes import COMMAND, circius, environment, fails, one_object, succeed

ONE = "--threads=1"


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("texts") / "calibration.txt"
    file.write_text("".join(f"On day {day} the wind that is called mistral blew again. " for day in range(2_000)))
    return file


def test_a_model_in_four_bits_answers(tiny: Path, tmp_path: Path) -> None:
    target = tmp_path / "int4"
    shown = circius("quantize", tiny, target, ONE)
    assert (shown.returncode, shown.stdout) == (0, f"{target}\n")
    assert "bits a weight" in shown.stderr
    assert "worst" in shown.stderr
    described = one_object("info", target)
    source = one_object("info", tiny)
    assert described["parameters"] == source["parameters"]
    assert described["window_size"] == source["window_size"] == 32
    assert described["weight_bytes"] < source["weight_bytes"] / 4
    fields = one_object("generate", target, "hello", "--max-tokens=8", ONE)
    assert len(fields["token_ids"]) == 8
    assert fields["prompt_token_ids"] == one_object("tokenize", tiny, "hello")["ids"]


def test_the_object_tells_of_the_errors(tiny: Path, tmp_path: Path) -> None:
    by_bits = {}
    for bits in ("4", "8"):
        by_bits[bits] = one_object("quantize", tiny, tmp_path / bits, f"--bits={bits}", ONE)
        assert (by_bits[bits]["path"], by_bits[bits]["method"]) == (str(tmp_path / bits), "nearest")
    assert 0 < by_bits["8"]["mean_error"] < 0.01 < by_bits["4"]["mean_error"] < by_bits["4"]["worst_error"] < 0.1
    assert by_bits["4"]["bits_per_weight"] < by_bits["8"]["bits_per_weight"] < 9
    assert by_bits["4"]["worst_weight"].endswith("_proj.weight")


def test_calibrated_and_with_bits_by_name(tiny: Path, text: Path, tmp_path: Path) -> None:
    arguments = ["--method=gptq", f"--calibration={text}", "--calibration-tokens=2048", "--group=64", "--asymmetric"]
    arguments += ["--set=model.layers.0.*=8", "--set=*.down_proj.weight=16", "--scales=bf16", ONE]
    fields = one_object("quantize", tiny, tmp_path / "gptq", *arguments)
    assert fields["method"] == "gptq"
    assert "calibration: 2048 tokens in 8 excerpts from calibration.txt" in fields["notes"]
    said = json.loads((tmp_path / "gptq" / "config.json").read_text())["quantization_config"]
    assert said["method"] == "gptq"
    assert succeed("generate", tmp_path / "gptq", "hello", "--max-tokens=4", ONE, "-q")


def test_the_demo_model_is_taken_over_exactly(demo_gguf: Path, tmp_path: Path) -> None:
    """Its file has four bits with minima: nothing is rounded, and it says what the file says."""
    target = tmp_path / "demo"
    fields = one_object("quantize", demo_gguf, target, ONE)
    assert (fields["worst_error"], fields["mean_error"]) == (0, 0)
    assert fields["bytes"] == pytest.approx(demo_gguf.stat().st_size, rel=0.05)
    asked = ["The capital of France is", "--raw", "--max-tokens=6", ONE]
    answers = [one_object("generate", model, *asked)["token_ids"] for model in (demo_gguf, target)]
    assert answers[0] == answers[1]


def test_the_target_gets_a_name_from_the_model(tiny: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "quantize", tiny, ONE, "-q"], cwd=tmp_path, env=environment(), capture_output=True, text=True,
        timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout == "tiny-int4\n"
    assert (tmp_path / "tiny-int4" / "config.json").is_file()


def test_without_a_calibration_text_there_is_no_gptq(tiny: Path, tmp_path: Path) -> None:
    said = fails("quantize", tiny, tmp_path / "target", "--method=gptq", code=2)
    assert "needs a --calibration text: a file (UTF-8) of 200 KB or more" in said


def test_ctrl_c_leaves_nothing_behind(tiny: Path, text: Path, tmp_path: Path) -> None:
    """Interrupted as soon as it has begun to write."""
    target = tmp_path / "int4"
    arguments = ["quantize", str(tiny), str(target), "--method=gptq", f"--calibration={text}", ONE]
    process = subprocess.Popen([*COMMAND, *arguments], env=environment(), stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not any(tmp_path.iterdir()):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert list(tmp_path.iterdir()) == []
