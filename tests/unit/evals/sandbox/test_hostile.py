"""Programs that mean harm, run for real in every jail that this machine has."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from circius.base.errors import SandboxError
from circius.evals.sandbox.jail import Jail, Kind
from circius.evals.sandbox.limits import MIB, Limits
from circius.evals.sandbox.probe import find_jail
from circius.evals.sandbox.running import Verdict, run_jailed

KINDS: tuple[Kind, ...] = ("bwrap", "unshare")


@pytest.fixture(scope="module", params=KINDS)
def jail(request: pytest.FixtureRequest) -> Jail:
    try:
        return find_jail(request.param)
    except SandboxError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", autouse=True)
def _nothing_stays() -> Iterator[None]:
    yield
    assert not list(jailed_processes())


def run(program: str, jail: Jail, **limits: float) -> Verdict:
    return run_jailed(program, jail, Limits(**{"timeout_s": 8, **limits}))  # type: ignore[arg-type]


def jailed_processes() -> Iterator[str]:
    """Processes of programs: they alone are told to write no .pyc and to know no site."""
    for process in Path("/proc").iterdir():
        try:
            command = (process / "cmdline").read_bytes() if process.name.isdecimal() else b""
        except OSError:
            continue
        if b"\0-S\0-s\0-P\0-B\0-c\0" in command:
            yield f"{process.name}: {command[:80]!r}"


class TestPretending:
    @pytest.mark.parametrize(
        ("trick", "why"),
        [
            ("import sys; sys.exit(0)", "exit code 0"),
            ("raise SystemExit", "exit code 0"),
            ("import os; os._exit(0)", "exit code 0"),
            ("import atexit; atexit._run_exitfuncs(); raise SystemExit", "exit code 0"),
            ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", ""),
            ("print('passed'); raise KeyboardInterrupt", "KeyboardInterrupt"),
            ("import threading, os; threading.Timer(0.05, os._exit, [0]).start(); import time; time.sleep(5)", ""),
        ],
    )
    def test_ends_that_look_good(self, jail: Jail, trick: str, why: str) -> None:
        verdict = run(f"{trick}\nassert False", jail)
        assert not verdict.passed
        assert why in verdict.why

    @pytest.mark.parametrize(
        "trick",
        [
            "for fd in range(3, 60):\n  try: os.write(fd, found[0] if found else bytes(32))\n  except OSError: pass",
            "for fd in range(3, 60):\n  try: os.close(fd)\n  except OSError: pass",
        ],
    )
    def test_the_nonce_is_nowhere_to_be_seen(self, jail: Jail, trick: str) -> None:
        """Looks through all frames, modules, arguments, variables, descriptors for 32 bytes; writes what it finds."""
        verdict = run(
            f"""
import os, sys
found = []
def look(value, depth=0):
    if isinstance(value, (bytes, bytearray)) and len(value) >= 32:
        found.append(bytes(value[:32]))
    elif depth < 4 and isinstance(value, dict):
        for inner in list(value.values()): look(inner, depth + 1)
    elif depth < 4 and isinstance(value, (tuple, list, set)):
        for inner in list(value): look(inner, depth + 1)
    elif depth < 4 and hasattr(value, "func") and hasattr(value, "args"):
        look(value.func, depth + 1); look(value.args, depth + 1)
frame = sys._getframe()
while frame:
    look(dict(frame.f_locals)); look(dict(frame.f_globals)); look(frame.f_code.co_consts)
    frame = frame.f_back
for module in list(sys.modules.values()): look(dict(vars(module)))
look(sys.argv); look(sys.orig_argv); look(dict(os.environ))
assert sys.stdin.read() == ""
for place in ("/proc/self/mem", "/proc/self/environ", "/proc/self/cmdline", "/proc/1/environ"):
    assert not os.path.exists(place), place
for fd in range(60):
    try:
        os.lseek(fd, 0, 0)
        look(os.read(fd, 4096))
    except OSError: pass
{trick}
os._exit(0)
""",
            jail,
        )
        assert not verdict.passed
        assert "exit code 0" in verdict.why

    @pytest.mark.parametrize(
        "trick",
        [
            "import gc; gc.get_objects()",
            "import gc; gc.get_referrers(print)",
            "import gc; gc.get_referents(print)",
            "import sys; sys.settrace(lambda *a: None)",
            "import sys; sys.setprofile(lambda *a: None)",
            "import sys; sys._current_frames()",
            "import ctypes",
            "import _ctypes",
            "__import__('_testcapi')",
            "(lambda: 0).__code__.replace(co_consts=())",
            "import subprocess, sys; subprocess.run([sys.executable, '-c', ''])",
            "import os; os.system('true')",
            "import os; os.execv('/bin/true', ['true'])",
            "import os; os.posix_spawn('/bin/true', ['true'], {})",
            "import _posixsubprocess",
        ],
    )
    def test_reaching_into_the_interpreter(self, jail: Jail, trick: str) -> None:
        verdict = run(f"try:\n    {trick}\nexcept BaseException:\n    pass", jail)
        assert not verdict.passed
        assert "NotAllowed" in verdict.why

    def test_what_programs_may_do(self, jail: Jail) -> None:
        program = """
import collections, dataclasses, enum, functools, inspect, itertools, math, random, re, string, sys, threading, typing
Point = collections.namedtuple("Point", "x y")
@dataclasses.dataclass
class Line:
    start: Point
class Colour(enum.Enum):
    RED = 1
assert inspect.currentframe().f_code.co_name == "<module>"
assert eval("1 + 1") == 2
assert __name__ == "__main__" and sys.argv == ["program.py"] and sys.modules["__main__"].Line is Line
with open("notes.txt", "w") as file: file.write("hello")
assert open("notes.txt").read() == "hello"
thread = threading.Thread(target=lambda: None); thread.start(); thread.join()
sys.setrecursionlimit(5000)
assert hash("a") == hash("a")
"""
        verdict = run(program, jail)
        assert verdict == Verdict(passed=True, why="passed", seconds=verdict.seconds)

    def test_sets_have_one_order(self, jail: Jail) -> None:
        said = {run("raise Exception(list(set('sandbox')))", jail).why for _ in range(3)}
        assert len(said) == 1

    def test_who_forks_may_report_twice(self, jail: Jail) -> None:
        assert run("import os\nif os.fork(): os.wait()\nassert True", jail).passed
        assert not run("import os\nif os.fork(): os.wait()\nassert False", jail).passed


class TestHarm:
    def test_fork_bomb(self, jail: Jail) -> None:
        n_most = 0
        ended = threading.Event()

        def count() -> None:
            nonlocal n_most
            while not ended.wait(0.05):
                n_most = max(n_most, len(list(jailed_processes())))

        counter = threading.Thread(target=count)
        counter.start()
        bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
        verdict = run(bomb, jail, timeout_s=2, processes=20)
        ended.set()
        counter.join()
        assert not verdict.passed
        assert "timed out" in verdict.why
        assert 2 < n_most <= 25
        assert not list(jailed_processes())

    def test_threads_without_end(self, jail: Jail) -> None:
        verdict = run(
            "import threading, time\nfor _ in range(100): threading.Thread(target=time.sleep, args=(9,)).start()", jail
        )
        assert "can't start new thread" in verdict.why

    def test_network(self, jail: Jail) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            program = f"import socket; socket.create_connection(('127.0.0.1', {port}), timeout=2)"
            assert not run(program, jail).passed
            server.settimeout(0.1)
            with pytest.raises(TimeoutError):
                server.accept()
        assert "unreachable" in run("import socket; socket.create_connection(('1.1.1.1', 80), timeout=2)", jail).why
        assert "gaierror" in run("import socket; socket.getaddrinfo('example.com', 80)", jail).why

    def test_files_outside(self, jail: Jail, tmp_path: Path) -> None:
        tmp_path.chmod(0o777)
        victim = tmp_path / "victim"
        victim.write_text("precious")
        victim.chmod(0o666)
        for action in (
            f"open({str(victim)!r})",
            f"open({str(victim)!r}, 'w')",
            f"import os; os.listdir({str(tmp_path)!r})",
        ):
            assert "No such file" in run(action, jail).why
        assert victim.read_text() == "precious"
        looks = run("import os; raise Exception(sorted(os.listdir('/')))", jail).why
        assert "home" not in looks
        assert "proc" not in looks
        assert "FileNotFoundError" in run("open('/etc/passwd')", jail).why
        assert not run("import os, sys; os.remove(os.__file__)", jail).passed
        assert Path(os.__file__).is_file()
        assert not run("import os; os.mkdir('/new')", jail).passed
        assert not run("import os; os.chmod('/usr', 0o777)", jail).passed

    def test_privileges(self, jail: Jail) -> None:
        for action in ("os.setgroups([0])", "os.chroot('/tmp')", "os.mknod('/tmp/disk', 0o60666, 2049)", "os.nice(-5)"):
            assert "PermissionError" in run(f"import os; {action}", jail).why
        if os.geteuid() == 0:
            assert "PermissionError" in run("import os; os.setuid(0)", jail).why

    def test_environment(self, jail: Jail, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SOME_API_KEY", "secret")
        assert "SOME_API_KEY" not in run("import os; raise Exception(str(dict(os.environ)))", jail).why

    def test_memory_of_one(self, jail: Jail) -> None:
        assert run("bytearray(2 << 30)", jail).why == "MemoryError"

    def test_memory_of_many(self, jail: Jail) -> None:
        program = """
import os, time
for _ in range(10):
    if os.fork() == 0:
        held = bytearray(b"x") * (60 << 20)
        time.sleep(60)
time.sleep(60)
"""
        verdict = run(program, jail, memory_bytes=128 * MIB)
        assert verdict.why == "used more than 128 MiB of memory"
        assert verdict.seconds < 7

    def test_endless_loop(self, jail: Jail) -> None:
        verdict = run("while True: pass", jail, timeout_s=1)
        assert verdict.why == "timed out after 1 s"
        assert verdict.seconds < 4

    def test_processor_time(self, jail: Jail) -> None:
        verdict = run("while True: pass", jail, processor_s=1, timeout_s=60)
        assert verdict.why == "used more than 1 s of processor time"
        stubborn = "import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
        assert not run(stubborn, jail, processor_s=1, timeout_s=60).why.startswith("timed out")

    def test_signals_are_no_shield(self, jail: Jail) -> None:
        program = (
            "import signal\nfor n in range(1, 32):\n try: signal.signal(n, signal.SIG_IGN)\n except OSError: pass\n"
        )
        assert "timed out" in run(program + "while True: pass", jail, timeout_s=1).why

    @pytest.mark.parametrize("stream", ["stdout", "stderr"])
    def test_huge_output(self, jail: Jail, stream: str) -> None:
        assert run(f"import sys\nfor _ in range(300): sys.{stream}.write('x' * 100_000)", jail).passed
        endless = f"import sys\nwhile True: sys.{stream}.write('x' * 100_000)"
        verdict = run(endless, jail, timeout_s=1)
        assert "timed out" in verdict.why
        assert len(verdict.why) < 400

    def test_huge_files(self, jail: Jail) -> None:
        assert "File too large" in run("open('big', 'wb').write(bytes(3 << 20))", jail).why
        program = "for n in range(40): open(str(n), 'wb').write(bytes(1 << 19))"
        assert "No space left" in run(program, jail).why
        assert "Too many open files" in run("held = [open('x', 'w') for _ in range(100)]", jail).why

    def test_children_that_stay(self, jail: Jail) -> None:
        daemon = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(100)
    os._exit(0)
for _ in range(5):
    if os.fork() == 0:
        os._exit(0)
"""
        begun = time.monotonic()
        assert run(daemon, jail).passed
        assert time.monotonic() - begun < 5
        assert not list(jailed_processes())

    def test_threads_that_stay(self, jail: Jail) -> None:
        verdict = run("import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()", jail)
        assert verdict.passed
        assert verdict.seconds < 5

    @pytest.mark.parametrize(
        ("program", "why"),
        [
            ("def f(:", "SyntaxError"),
            ("x = 1\0", "null bytes"),
            ("assert 1 == 2, 'not equal'", "AssertionError: not equal"),
            ("\ud800", "no Unicode text"),
            ("def f(): f()\nf()", "RecursionError"),
            ("(" * 500 + ")" * 500, "SyntaxError"),
            ("raise Exception('red: \\x1b[31m')", "red: ?[31m"),
            ("import os; os.abort()", ""),
        ],
    )
    def test_why(self, jail: Jail, program: str, why: str) -> None:
        verdict = run(program, jail)
        assert not verdict.passed
        assert why in verdict.why
