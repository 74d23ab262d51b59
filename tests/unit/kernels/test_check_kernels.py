"""tests/native/check_kernels.c, built and run: every set of instructions gives the bits of plain C."""

import importlib.util
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from circius.kernels import native

ROOT = Path(__file__).parents[3]
CSRC = ROOT / "src" / "circius" / "kernels" / "csrc"
PROGRAM = ROOT / "tests" / "native" / "check_kernels.c"


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_here(build: ModuleType, tmp_path: Path) -> None:
    """With the library as it was installed."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not native.available():
        pytest.skip(f"needs a C compiler and the library: {native.describe()}")
    library = Path(native.library()._name)
    program = tmp_path / "check_kernels"
    inputs = (f"-I{CSRC}", str(PROGRAM), str(library), f"-Wl,-rpath,{library.parent}")
    _run([compiler, *build.COMMON_FLAGS, *inputs, "-o", str(program), "-lm"])
    said = _run([str(program)])
    assert all(line.endswith(" 0 differ from plain C") for line in said.splitlines() if "results" in line), said


@pytest.mark.slow
def test_arm(build: ModuleType, tmp_path: Path) -> None:
    compiler, emulator = shutil.which("aarch64-linux-gnu-gcc"), None
    for name in ("qemu-aarch64", "qemu-aarch64-static"):
        emulator = emulator or shutil.which(name)
    if compiler is None or emulator is None:
        pytest.skip("needs aarch64-linux-gnu-gcc and qemu-aarch64")
    objects = []
    for source in sorted(CSRC.glob("*.c")):
        suffix = source.stem.rpartition("_")[2]
        if suffix in build.ISA_FLAGS["x86_64"]:
            continue
        objects.append(str(tmp_path / f"{source.stem}.o"))
        flags = build.ISA_FLAGS["aarch64"].get(suffix, ())
        _run([compiler, *build.COMMON_FLAGS, *flags, "-c", str(source), "-o", objects[-1]])
    program = tmp_path / "check_kernels"
    _run([compiler, *build.COMMON_FLAGS, f"-I{CSRC}", str(PROGRAM), *objects, "-static", "-o", str(program), "-lm"])
    said = _run([emulator, "-cpu", "max", str(program), "neon"])
    assert " 0 differ from plain C" in said
