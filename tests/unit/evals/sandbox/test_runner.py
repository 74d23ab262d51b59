"""Choosing a jail, refusing to go without one, and taking turns."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from circius.base.errors import InvalidInputError, SandboxError
from circius.evals.sandbox import Limits, Sandbox, Verdict, probe, run, runner
from circius.evals.sandbox.jail import Jail
from circius.evals.sandbox.running import run_jailed
from circius.evals.sandbox.tree import Tree, find_tree, make_skeleton, read_only_options
from circius.evals.sandbox.watch import memory_of_tree


@pytest.fixture
def fresh() -> None:
    """As in a new process: nothing is known about which jails work."""
    probe.find_jail.cache_clear()
    runner._shared.cache_clear()


@pytest.fixture
def nothing_works(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "tools_missing", lambda kind: ["setpriv"] if kind == "bwrap" else [])
    monkeypatch.setattr(probe, "probe", lambda jail: Verdict(passed=False, why="not permitted", seconds=0.0))


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    probe.find_jail.cache_clear()
    runner._shared.cache_clear()


def test_without_a_jail_nothing_runs(nothing_works: None) -> None:
    with pytest.raises(SandboxError, match=r"bwrap: setpriv not installed; unshare: not permitted.*install bubblewrap"):
        run("assert True")
    with pytest.raises(SandboxError, match="unshare: not permitted"):
        Sandbox(kind="unshare")


def test_other_systems_are_refused(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for system in ("darwin", "win32"):
        monkeypatch.setattr("sys.platform", system)
        with pytest.raises(SandboxError, match=f"no sandbox for {system}"):
            Sandbox()
    monkeypatch.setattr("os.name", "nt")
    with pytest.raises(SandboxError, match="not even unguarded"):
        Sandbox(unsafe=True)


def test_unguarded_only_where_asked(nothing_works: None) -> None:
    sandbox = Sandbox(unsafe=True, limits=Limits(timeout_s=60, processor_s=1))
    assert sandbox.jail.kind == "none"
    assert sandbox.run("open('notes', 'w').write('x'); assert open('notes').read() == 'x'").passed
    assert sandbox.run("assert 1 == 2").why == "AssertionError"
    assert sandbox.run("import sys; sys.exit(0)").why == "ended before its last line (exit code 0)"
    assert sandbox.run("import ctypes").why == "NotAllowed: ctypes"
    assert sandbox.run("bytearray(2 << 30)").why == "MemoryError"
    assert sandbox.run("while True: pass").why == "used more than 1 s of processor time"
    late = Sandbox(unsafe=True, limits=Limits(timeout_s=0.7))
    assert late.run("import os, time; os.fork(); time.sleep(9)").why == "timed out after 0.7 s"


def test_unsafe_prefers_a_jail(fresh: None) -> None:
    try:
        kind = probe.find_jail().kind
    except SandboxError as error:
        pytest.skip(str(error))
    assert Sandbox(unsafe=True).jail.kind == kind != "none"


def test_a_probe_notices_that_there_are_no_walls() -> None:
    verdict = probe.probe(Jail(kind="none"))
    assert not verdict.passed
    assert "can " in verdict.why
    assert not Path("/circius-probe").exists()


def test_no_more_at_once_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, most, lock = 0, 0, threading.Lock()

    def busy(program: str, jail: Jail, limits: Limits) -> Verdict:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.02)
        with lock:
            at_once -= 1
        return Verdict(passed=True, why=program, seconds=0.0)

    monkeypatch.setattr(runner, "run_jailed", busy)
    monkeypatch.setattr(runner, "find_jail", lambda kind: Jail(kind="none"))
    sandbox = Sandbox(n_at_once=2)
    threads = [threading.Thread(target=sandbox.run, args=("x",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    verdicts = sandbox.run_all([str(n) for n in range(8)])
    for thread in threads:
        thread.join()
    assert most == 2
    assert [verdict.why for verdict in verdicts] == [str(n) for n in range(8)]
    with pytest.raises(InvalidInputError, match="n_at_once"):
        Sandbox(n_at_once=0)


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [
        ({"timeout_s": 0}, "timeout_s must be 0.1 or more, got 0"),
        ({"timeout_s": float("nan")}, "timeout_s"),
        ({"memory_bytes": 1000}, "memory_bytes must be 6.71089e"),
        ({"processes": True}, "processes must be a number"),
        ({"processes": 2.5}, "processes must be a number, a whole one"),
        ({"processor_s": 0}, "processor_s must be 1 or more"),
    ],
)
def test_limits_that_python_cannot_live_with(limits: dict[str, float], complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        Limits(**limits)  # type: ignore[arg-type]


def test_a_program_that_is_too_long() -> None:
    verdict = run_jailed("#" * (5 << 20), Jail(kind="none"), Limits())
    assert verdict.why == f"the program has {5 << 20} bytes, {4 << 20} at most"


def test_the_tree_holds_python_and_nothing_of_the_user(tmp_path: Path) -> None:
    tree = find_tree()
    assert "/usr" in tree.shown
    assert not any(str(Path.home()) == name or name in ("/", "/home", "/root", "/etc") for name in tree.shown)
    make_skeleton(tmp_path / "root", tree)
    for name in tree.shown:
        assert (tmp_path / "root" / name.lstrip("/")).exists()
    assert (tmp_path / "root").stat().st_mode & 0o777 == 0o755


def test_nested_places_in_the_tree_are_readable(tmp_path: Path) -> None:
    inner = tmp_path / "secret" / "python"
    inner.mkdir(parents=True)
    make_skeleton(tmp_path / "root", Tree(shown=(str(inner),), links=(("/bin", "usr/bin"),)))
    place = tmp_path / "root" / str(inner).lstrip("/")
    while place != tmp_path:
        assert place.stat().st_mode & 0o777 == 0o755
        place = place.parent
    assert (tmp_path / "root/bin").readlink() == Path("usr/bin")


def test_mounts_keep_their_restrictions() -> None:
    assert read_only_options("/").startswith("bind,ro,nosuid")


def test_memory_of_a_tree() -> None:
    own = memory_of_tree(os.getpid())
    assert own > 10 << 20
    assert memory_of_tree(2**22 + 5) == 0
