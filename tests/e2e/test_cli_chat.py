"""Chats: scripted through a pipe, and at a real (pseudo) terminal."""

import json
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.e2e.processes import COMMAND, ENDLESS, TIMEOUT_S, circius, environment

CHAT = ["--template=v1", "--threads=1"]


def test_a_scripted_chat_reuses_its_cache(tiny: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved.json"
    script = f'hello\n\n"""two\nlines"""\n/save {saved}\n/reset\n/load {saved}\n//slash\n/retry\n'
    done = circius(
        "chat", tiny, *CHAT, "--window=none", "--max-tokens=5", "--temperature=0", "--json", stdin=script.encode()
    )
    assert done.returncode == 0, done.stderr
    turns = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(turns) == 4
    first, second, third, fourth = turns
    assert first["timings"]["cached_tokens"] == 0
    for turn in turns[1:]:
        assert turn["timings"]["cached_tokens"] > 0
    assert second["usage"]["prompt_tokens"] > first["usage"]["prompt_tokens"]
    assert fourth["token_ids"] == third["token_ids"]
    messages = json.loads(saved.read_text())["messages"]
    assert f"4 messages saved to {saved}" in done.stderr
    assert [message["role"] for message in messages] == ["user", "assistant", "user", "assistant"]
    assert messages[2]["content"] == "two\nlines"


def test_an_error_ends_a_scripted_chat(tiny: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text('{"format": "something else"}')
    script = f"/stats\n/load {bad}\nhello\n"
    done = circius("chat", tiny, *CHAT, stdin=script.encode())
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith(f"circius: error: {bad} is not a saved conversation")


def test_a_model_without_a_template_cannot_chat(tiny: Path) -> None:
    done = circius("chat", tiny, stdin=b"hello\n")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "--template" in done.stderr


class Terminal:
    """A chat at a pseudo-terminal: what it shows is collected until something awaited appears."""

    def __init__(self, *arguments: str | Path, home: Path) -> None:
        self._master, slave = pty.openpty()
        env = environment() | {"CIRCIUS_HOME": str(home), "TERM": "xterm"}
        self.process = subprocess.Popen(
            [*COMMAND, "chat", *map(str, arguments)], stdin=slave, stdout=slave, stderr=slave, env=env
        )
        os.close(slave)
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_for(self, text: str) -> None:
        """Reads on until `text` is shown; what was shown up to its end is forgotten."""
        self._read_until(lambda: text in self.shown, f"{text!r} to appear")
        self.shown = self.shown.partition(text)[2]

    def wait_for_prompt(self) -> None:
        """Reads on until keys are taken: the line editor switches bracketed paste on."""
        self.wait_for("\x1b[?2004h")

    def wait_for_answer(self) -> None:
        """Reads on until an answer has begun: the line editor leaves, then text comes."""
        self.wait_for("\x1b[?2004l")
        self._read_until(lambda: len(self.shown) > 200, "an answer")

    def _read_until(self, is_done: Callable[[], bool], awaited: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not is_done():
            assert time.monotonic() < deadline, f"waited in vain for {awaited}; shown: {self.shown[-2000:]}"
            if select.select([self._master], [], [], 1)[0]:
                self.shown += os.read(self._master, 4096).decode(errors="replace")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


def test_ctrl_c_stops_the_answer_and_not_the_chat(tiny: Path, tmp_path: Path) -> None:
    terminal = Terminal(tiny, *CHAT, *ENDLESS, home=tmp_path)
    try:
        terminal.wait_for("is ready")
        terminal.wait_for_prompt()
        terminal.type("hello\r")
        terminal.wait_for_answer()
        terminal.process.send_signal(signal.SIGINT)
        terminal.wait_for("stopped by Ctrl-C")
        terminal.wait_for_prompt()
        terminal.type("/nonsense\r")
        terminal.wait_for("circius: error: unknown command /nonsense")
        terminal.wait_for_prompt()
        terminal.type("/stats\r")
        terminal.wait_for("1 answers, 2 messages")
        terminal.wait_for_prompt()
        terminal.type("\x04")
        assert terminal.process.wait(30) == 0
        history = tmp_path / "chat_history"
        assert "+hello" in history.read_text()
        assert history.stat().st_mode & 0o077 == 0
    finally:
        terminal.close()


def test_a_home_that_cannot_be_written_only_costs_the_history(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    terminal = Terminal(tiny, *CHAT, home=tmp_path / "file" / "home")
    try:
        terminal.wait_for("not kept for the next chat")
        terminal.wait_for("is ready")
        terminal.wait_for_prompt()
        terminal.type("/exit\r")
        assert terminal.process.wait(30) == 0
    finally:
        terminal.close()
