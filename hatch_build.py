"""Builds the native library of `circius.kernels` when the package is installed, if there is a C compiler.

Every csrc/*.c is compiled; the end of its name says for which instructions (`_avx2`, `_avx512`, `_neon`, else plain C),
and files for another processor are left out. Without a compiler, or if it fails, the package installs all the same and
runs on torch's kernels. By hand, in a checkout: `python hatch_build.py`.
"""

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand, where nothing but the compiler is needed
    BuildHookInterface = object

KERNELS = Path(__file__).parent / "src" / "circius" / "kernels"
LIBRARY = KERNELS / "_native.so"

# Products and sums are fused where the source says fmaf and nowhere else: results are the same on every processor.
COMMON_FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O3", "-fPIC", "-ffp-contract=off", "-Wall", "-Wextra")
ISA_FLAGS = {
    "x86_64": {
        "avx2": ("-mavx2", "-mfma", "-mf16c"),
        "avx512": (
            *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni"),
            *("-mavx2", "-mfma", "-mf16c"),
        ),
    },
    "aarch64": {"neon": ("-march=armv8.2-a+dotprod",)},
}
ALL_SUFFIXES = {suffix for flags in ISA_FLAGS.values() for suffix in flags}


class BuildError(Exception):
    """Why there is no library."""


class CustomBuildHook(BuildHookInterface):
    """What hatchling calls for a wheel and for an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        try:
            compile_library()
        except BuildError as error:
            LIBRARY.unlink(missing_ok=True)  # one from an earlier build may not fit the sources any more
            self.app.display_warning(
                f"circius: the native kernels were not built ({error}). The package works without them, more slowly; "
                "install gcc or clang and install it again to have them."
            )
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_platform_tag()}"


def compile_library() -> Path:
    """Compiles and links csrc/*.c, and puts the library in its place in one step.

    Raises:
        BuildError: there is no compiler, or it failed.
    """
    compiler = _compiler()
    sources = _sources()
    with tempfile.TemporaryDirectory(prefix="circius-build-") as folder:
        objects = [str(Path(folder) / f"{source.stem}.o") for source, _ in sources]
        commands = [
            [*compiler, *COMMON_FLAGS, *flags, "-c", str(source), "-o", target]
            for (source, flags), target in zip(sources, objects, strict=True)
        ]
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            list(pool.map(_run, commands))
        linked = Path(folder) / LIBRARY.name
        _run([*compiler, "-shared", "-o", str(linked), *objects, "-lm"])
        # Beside the target first, since only within one file system does a rename replace in one step.
        beside = LIBRARY.with_name(f"{LIBRARY.name}.{os.getpid()}.tmp")
        try:
            shutil.copy(linked, beside)
            beside.replace(LIBRARY)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise BuildError(f"{LIBRARY} could not be written: {error}") from error
    return LIBRARY


def _compiler() -> list[str]:
    if sys.platform == "win32":
        raise BuildError("there is no build for Windows")
    for candidate in (os.environ.get("CC"), sysconfig.get_config_var("CC"), "cc", "gcc", "clang"):
        words = shlex.split(candidate or "")
        if words and shutil.which(words[0]):
            return words
        if words and candidate == os.environ.get("CC"):
            raise BuildError(f"CC is {candidate!r}, which is not a program")
    raise BuildError("no C compiler was found")


def _sources() -> list[tuple[Path, tuple[str, ...]]]:
    """The files that fit this processor, each with the flags that its name asks for."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    here = ISA_FLAGS.get(machine, {})
    chosen = []
    for source in sorted((KERNELS / "csrc").glob("*.c")):
        suffix = source.stem.rpartition("_")[2]
        if suffix in here:
            chosen.append((source, here[suffix]))
        elif suffix not in ALL_SUFFIXES:
            chosen.append((source, ()))
    if not chosen:
        raise BuildError(f"there are no sources in {KERNELS / 'csrc'}")
    return chosen


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildError(f"{command[0]} could not be run: {error}") from error
    if done.returncode:
        raise BuildError(f"{shlex.join(command)} failed:\n{done.stderr.strip()}")
    if done.stderr.strip():
        print(done.stderr.strip(), file=sys.stderr)


def _platform_tag() -> str:
    """The tag of this machine. Not of any manylinux: the library may need a libc as new as the one here."""
    from packaging.tags import platform_tags  # comes with hatchling

    return next(tag for tag in platform_tags() if "manylinux" not in tag and "musllinux" not in tag)


if __name__ == "__main__":
    try:
        print(compile_library())
    except BuildError as error:
        sys.exit(f"the native kernels were not built: {error}")
