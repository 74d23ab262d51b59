"""All kernels with all instructions against plain C, bit for bit, in a program that needs no Python; those of Arm too,
where there is an emulator."""

import platform
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CSRC = ROOT / "src" / "circius" / "kernels" / "csrc"
CHECKS = ROOT / "tests" / "native" / "check_kernels.c"


def build(compiler: str, machine: str, folder: Path) -> Path:
    """The program for a machine, compiled with the flags that the package is built with."""
    hatch_build = runpy.run_path(str(ROOT / "hatch_build.py"))
    flags, by_suffix = hatch_build["COMMON_FLAGS"], hatch_build["ISA_FLAGS"][machine]
    objects = []
    for source in [*sorted(CSRC.glob("*.c")), CHECKS]:
        suffix = source.stem.rpartition("_")[2]
        if suffix in hatch_build["ALL_SUFFIXES"] - by_suffix.keys():
            continue
        objects.append(str(folder / f"{source.stem}.o"))
        words = [*flags, "-Werror", *by_suffix.get(suffix, ()), f"-I{CSRC}", "-c", str(source), "-o", objects[-1]]
        subprocess.run([compiler, *words], check=True)
    program = folder / "check_kernels"
    subprocess.run([compiler, "-static", *objects, "-o", str(program), "-lm"], check=True)
    return program


def test_every_instruction_set_here(tmp_path: Path) -> None:
    compiler, machine = shutil.which("cc"), {"arm64": "aarch64"}.get(platform.machine(), platform.machine())
    if compiler is None or machine not in ("x86_64", "aarch64") or platform.system() != "Linux":
        pytest.skip("needs a C compiler on Linux")
    done = subprocess.run([build(compiler, machine, tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_neon_in_an_emulator(tmp_path: Path) -> None:
    compiler, emulator = shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64-static")
    if compiler is None or emulator is None:
        pytest.skip("needs aarch64-linux-gnu-gcc and qemu-aarch64-static")
    words = [emulator, "-cpu", "max", str(build(compiler, "aarch64", tmp_path)), "neon"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
