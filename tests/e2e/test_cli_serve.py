"""`circius serve` as a process: it listens, answers, refuses, drains, and says in one line why it cannot start."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.processes import COMMAND, environment, fails

ASKED = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8, "temperature": 0}


@contextmanager
def server(*arguments: str | Path, keys: str = "") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running server and its address."""
    env = environment() | {"CIRCIUS_API_KEYS": keys}
    process = subprocess.Popen(
        [*COMMAND, "serve", *map(str, arguments), "--threads=1"], stderr=subprocess.PIPE, text=True, env=env
    )
    assert process.stderr is not None
    lines = []
    try:
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"listening on (http://\S+)", line):
                break
        else:
            raise AssertionError("".join(lines))
        url = found[1]
        deadline = time.monotonic() + 60
        while httpx.get(f"{url}/health").status_code != 200:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process, url
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_it_answers_and_drains(tiny: Path) -> None:
    with server(tiny, "--port=0", "--max-streams=2", "--template=v1") as (process, url):
        assert httpx.get(f"{url}/v1/models").json()["data"][0]["id"] == "tiny"
        body = httpx.post(f"{url}/v1/chat/completions", json=ASKED, timeout=60).json()
        assert body["usage"]["completion_tokens"] == 8
        with httpx.stream(
            "POST", f"{url}/v1/chat/completions", timeout=60,
            json=ASKED | {"stream": True, "max_tokens": 200, "logit_bias": {"2": -1000}},
        ) as response:  # fmt: skip
            lines = response.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            parts = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        assert parts[-1]["choices"][0]["finish_reason"] == "length", "an open answer is let to its end"
        assert process.wait(timeout=30) == 0


def test_keys_come_from_a_file_and_from_the_environment(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# for tests\nfrom-the-file\n")
    with server(tiny, "--port=0", f"--api-key-file={file}", "--template=v1", keys="from-the-environment") as (_, url):
        assert httpx.get(f"{url}/v1/models").status_code == 401
        for key in ("from-the-file", "from-the-environment"):
            headers = {"Authorization": f"Bearer {key}"}
            assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host=0.0.0.0"], "there is no API key: give --api-key-file"),
        (["--max-streams=0"], "max-streams"),
        (["--cache-tokens=10"], "give a smaller --context"),
        (["--max-memory=0.0001"], "more --max-memory"),
    ],
)
def test_what_cannot_work_is_told_in_one_line(tiny: Path, options: list[str], said: str) -> None:
    process = subprocess.run(
        [*COMMAND, "serve", str(tiny), "--port=0", "--quiet", *options],
        capture_output=True, text=True, env=environment() | {"CIRCIUS_API_KEYS": ""}, timeout=60, check=False,
    )  # fmt: skip
    assert process.returncode == 2, process.stderr
    assert said in process.stderr.splitlines()[-1]
    assert "Traceback" not in process.stderr


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    assert "nowhere" in fails("serve", tmp_path / "nowhere", "--port=0", code=2)


def test_a_port_that_is_taken(tiny: Path) -> None:
    with server(tiny, "--port=0") as (_, url):
        port = url.rsplit(":", 1)[1].rstrip("/")
        process = subprocess.run(
            [*COMMAND, "serve", str(tiny), f"--port={port}"],
            capture_output=True, text=True, env=environment(), timeout=60, check=False,
        )  # fmt: skip
        assert process.returncode == 1
        assert process.stderr.splitlines()[-1].startswith("circius: error: cannot listen on 127.0.0.1 port")
