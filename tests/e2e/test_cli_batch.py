"""`circius batch`: every line exactly once, in order, whatever happens on the way."""

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import COMMAND, circius, environment, fails

QUICK = ["--threads=1", "--template=v1", "--quiet"]


def line(custom_id: str, url: str = "/v1/completions", **body: Any) -> str:
    body = {"model": "tiny", "temperature": 0, "max_tokens": 8} | body
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body}) + "\n"


def answers(path: Path) -> list[dict[str, Any]]:
    return [json.loads(each) for each in path.read_text(encoding="utf-8").splitlines()]


def test_answers_in_order_and_errors_where_they_belong(tiny: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(
        line("a", prompt="wind", max_tokens=30)
        + line("b", prompt="x", temperature=-1)
        + "\n"
        + line("c", url="/v1/chat/completions", messages=[{"role": "user", "content": "Hi"}])
        + line("d", url="/v1/nowhere")
        + line("e", prompt="x", model="gpt-4")
        + line("f", prompt=["x", "y"], n=1)
    )
    done = circius("batch", tiny, source, target, *QUICK)
    assert done.returncode == 1, done.stderr
    found = answers(target)
    assert [each["custom_id"] for each in found] == list("abcdef")
    assert [each["response"]["status_code"] for each in found] == [200, 400, 200, 400, 404, 200]
    assert found[0]["response"]["body"]["usage"]["completion_tokens"] == 30
    assert found[1]["response"]["body"]["error"]["param"] == "temperature"
    assert found[2]["response"]["body"]["choices"][0]["message"]["role"] == "assistant"
    assert len(found[5]["response"]["body"]["choices"]) == 2
    assert not list(tmp_path.glob("*.partial"))


def test_killed_and_started_again_every_line_stands_once(tiny: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    ids = [f"line-{index}" for index in range(120)]
    source.write_text("".join(line(own, prompt=own, max_tokens=40, ignore_eos=True) for own in ids))
    partial = tmp_path / "out.jsonl.partial"
    command = [*COMMAND, "batch", str(tiny), str(source), str(target), *QUICK, "--max-streams=4"]
    n_kills = 0
    for wanted in (2, 20, 50):
        process = subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL)
        while process.poll() is None:
            if partial.exists() and partial.read_bytes().count(b"\n") > wanted:
                process.send_signal(signal.SIGKILL)
                n_kills += 1
                break
            time.sleep(0.005)
        process.wait()
        assert not target.exists(), "a half-written file must never stand under the real name"
    assert n_kills == 3
    with partial.open("ab") as file:
        file.write(b'{"custom_id": "line-')  # a line cut off in the middle
    done = circius("batch", tiny, source, target, *QUICK, "--json")
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["taken_over"] >= 50
    assert counts["taken_over"] + counts["answered"] == 120
    found = answers(target)
    assert [each["custom_id"] for each in found] == ids
    fresh = tmp_path / "fresh.jsonl"
    assert circius("batch", tiny, source, fresh, *QUICK).returncode == 0
    texts = [[each["response"]["body"]["choices"][0]["text"] for each in answers(path)] for path in (target, fresh)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "needs a custom_id"),
        ('{"method": "POST"}', "needs a custom_id"),
        (line("a", prompt="x") * 2, "stands in line 1 already"),
    ],
)
def test_a_file_whose_answers_could_not_be_told_apart(tiny: Path, tmp_path: Path, content: str, said: str) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(content)
    assert said in fails("batch", tiny, source, tmp_path / "out.jsonl", *QUICK, code=2)
    assert not (tmp_path / "out.jsonl").exists()


def test_what_is_there_is_not_overwritten(tiny: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(line("a", prompt="x"))
    target.write_text("precious")
    assert "--force" in fails("batch", tiny, source, target, *QUICK, code=2)
    assert target.read_text() == "precious"
    assert circius("batch", tiny, source, target, *QUICK, "--force").returncode == 0
    assert len(answers(target)) == 1


def test_leftovers_of_another_input_are_not_taken_over(tiny: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(line("a", prompt="x"))
    header = json.dumps({"circius_batch": {"input_sha256": "0", "vocab_size": 1}})
    (tmp_path / "out.jsonl.partial").write_text(header + "\n")
    assert "another input" in fails("batch", tiny, source, target, *QUICK, code=2)
