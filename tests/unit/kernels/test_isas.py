"""The kernels for processors that are not here, compared with portable C under an emulator, where there is one."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[3] / "src" / "circius" / "kernels" / "csrc"
COMMON = ["cpu.c", "pool.c", "scratch.c", "matmul.c", "matmul_portable.c", "quantise_portable.c"]
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O3", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-static"]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="on Arm the other tests run these kernels")
def test_neon_gives_the_bits_of_portable_c(tmp_path: Path) -> None:
    compiler, emulator = shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64-static")
    if compiler is None or emulator is None:
        pytest.skip("needs aarch64-linux-gnu-gcc and qemu-aarch64-static")
    program = tmp_path / "compare_isas"
    sources = [str(CSRC / name) for name in (*COMMON, "matmul_neon.c")]
    words = [*FLAGS, "-march=armv8.2-a+dotprod", f"-I{CSRC}", *sources, str(Path(__file__).with_name("compare_isas.c"))]
    subprocess.run([compiler, *words, "-o", str(program), "-lm"], check=True)
    done = subprocess.run([emulator, "-cpu", "max", str(program), "3"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "isa 3: 0 of" in done.stdout
