"""Finding, loading and switching off the native library, whatever state its file is in."""

import ctypes
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from circius.base.errors import CirciusError, InvalidInputError
from circius.kernels import native

pytestmark = pytest.mark.quick

needs_library = pytest.mark.skipif(not native.available(), reason="the native library was not built")


def test_without_the_file_it_says_so(tmp_path: Path) -> None:
    state = native.open_library(tmp_path / "_native.so")
    assert state.library is None
    assert "not built" in state.why_not


@pytest.mark.parametrize("size", [0, 10, 64, 100])
def test_a_file_that_is_no_library_is_refused(tmp_path: Path, size: int) -> None:
    file = tmp_path / "_native.so"
    file.write_bytes(b"x" * size)
    state = native.open_library(file)
    assert state.library is None
    assert file.name in state.why_not


@needs_library
@pytest.mark.skipif(sys.platform != "linux", reason="ELF files are of Linux")
@pytest.mark.parametrize("kept", [0.2, 0.6, 0.99])
def test_a_file_that_was_cut_off_is_not_loaded(tmp_path: Path, kept: float) -> None:
    whole = native._FILE.read_bytes()
    file = tmp_path / "_native.so"
    file.write_bytes(whole[: int(len(whole) * kept)])
    state = native.open_library(file)
    assert state.library is None
    assert "damaged" in state.why_not


@needs_library
@pytest.mark.skipif(sys.platform != "linux", reason="ELF files are of Linux")
def test_a_library_for_another_processor_is_refused(tmp_path: Path) -> None:
    changed = bytearray(native._FILE.read_bytes())
    changed[18] = 8  # the machine: MIPS
    file = tmp_path / "_native.so"
    file.write_bytes(changed)
    state = native.open_library(file)
    assert state.library is None
    assert "cannot be loaded" in state.why_not


@pytest.mark.skipif(sys.platform != "linux", reason="any library will do, and this one is where Linux has it")
def test_another_library_is_refused(tmp_path: Path) -> None:
    other = Path(ctypes.__file__).parent  # of Python itself, which lacks our entry points
    found = next(
        iter(sorted(Path(sys.base_prefix).glob("lib/**/lib-dynload/_struct*.so")) + sorted(other.glob("*.so"))), None
    )
    if found is None:
        pytest.skip("no other library at hand")
    state = native.open_library(found)
    assert state.library is None
    assert "not a library of circius" in state.why_not


@needs_library
def test_an_older_interface_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_INTERFACE", native._INTERFACE + 1)
    state = native.open_library(native._FILE)
    assert state.library is None
    assert "another version" in state.why_not


@needs_library
def test_it_runs_on_the_threads_of_torch() -> None:
    assert native.library().circius_has_threads() == 1
    assert "threads of" in native.describe()


@needs_library
def test_switched_off_it_is_as_if_it_were_not_there() -> None:
    with native.disabled():
        assert not native.available()
        assert "no native kernels" in native.describe()
        with pytest.raises(CirciusError, match="switched off"):
            native.library()
    assert native.available()


@needs_library
def test_lesser_instructions_can_be_forced() -> None:
    with native.forced("portable"):
        assert "portable C" in native.describe()
    assert native.library().circius_force_isa(-1) == 0


@needs_library
@pytest.mark.parametrize("isa", ["sse9", ""])
def test_unknown_instructions_cannot_be_forced(isa: str) -> None:
    with pytest.raises(InvalidInputError, match="cannot be forced"), native.forced(isa):
        pass


@needs_library
def test_instructions_of_another_processor_cannot_be_forced() -> None:
    elsewhere = "neon" if platform.machine() in ("x86_64", "AMD64") else "avx2"
    with pytest.raises(InvalidInputError, match=f"'{elsewhere}' cannot be forced"), native.forced(elsewhere):
        pass


def test_codes_of_the_library_become_errors() -> None:
    native.check(0)
    with pytest.raises(CirciusError, match="no memory"):
        native.check(2)
    with pytest.raises(CirciusError, match="mistake in circius"):
        native.check(1)


def test_importing_it_loads_nothing() -> None:
    code = "from circius.kernels import native; assert native._state.cache_info().currsize == 0"
    subprocess.run([sys.executable, "-c", code], check=True)
