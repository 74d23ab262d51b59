"""Which format is this? `open_checkpoint` looks at the path and hands it to the reader of that format."""

from pathlib import Path

from circius.base.config import Window
from circius.base.errors import CheckpointError, ModelNotFoundError
from circius.weights import consolidated, hf
from circius.weights.consolidated import open_consolidated
from circius.weights.gguf import open_gguf
from circius.weights.hf import open_hf
from circius.weights.opened import KEEP, Checkpoint, Keep

__all__ = ["KEEP", "Checkpoint", "Keep", "open_checkpoint"]

_GGUF_MAGIC = b"GGUF"


def open_checkpoint(path: Path | str, *, window: Window | Keep = KEEP, rope_theta: float | None = None) -> Checkpoint:
    """The checkpoint at `path`: a folder in Hugging Face's or Mistral's layout, or a GGUF file. Reads headers only.

    window: the keys that a query sees, itself included, instead of what the checkpoint says; None removes the window.
    rope_theta: the base of the rotation, instead of what the checkpoint says.

    Raises:
        ModelNotFoundError: there is no checkpoint of any format at `path`.
        CheckpointError: a part is missing, damaged, or of a kind that circius does not implement.
        ConfigError: the window or rope_theta that was asked for is impossible.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return _open_folder(path, window, rope_theta)
        if path.is_file():
            return _open_file(path, window, rope_theta)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    raise ModelNotFoundError(f"{path}: no such file or folder")


def _open_folder(folder: Path, window: Window | Keep, rope_theta: float | None) -> Checkpoint:
    """Hugging Face's layout first: official repositories carry both, and its configuration says more."""
    names = {path.name for path in folder.iterdir()}
    if hf.CONFIG_FILE in names and (names.intersection(hf.WEIGHT_FILES) or consolidated.PARAMS_FILE not in names):
        return open_hf(folder, window=window, rope_theta=rope_theta)
    if consolidated.PARAMS_FILE in names:
        return open_consolidated(folder, window=window, rope_theta=rope_theta)
    ggufs = sorted(name for name in names if name.endswith(".gguf"))
    if len(ggufs) == 1:
        return open_gguf(folder / ggufs[0], window=window, rope_theta=rope_theta)
    if ggufs:
        raise ModelNotFoundError(f"{folder}: holds {len(ggufs)} GGUF files; name one of them: {', '.join(ggufs)}")
    weights = sorted(name for name in names if Path(name).suffix in (".safetensors", ".bin", ".pth"))
    if weights:
        raise CheckpointError(
            f"{folder}: has weights ({', '.join(weights[:3])}) but neither {hf.CONFIG_FILE} nor "
            f"{consolidated.PARAMS_FILE}, so their shape is unknown"
        )
    raise ModelNotFoundError(
        f"{folder}: no checkpoint: looked for {hf.CONFIG_FILE} with {', '.join(hf.WEIGHT_FILES)}; for "
        f"{consolidated.PARAMS_FILE} with {', '.join(consolidated.WEIGHT_FILES)}; and for a .gguf file"
    )


def _open_file(file: Path, window: Window | Keep, rope_theta: float | None) -> Checkpoint:
    with file.open("rb") as stream:
        magic = stream.read(len(_GGUF_MAGIC))
    if file.suffix == ".gguf" or magic == _GGUF_MAGIC:
        return open_gguf(file, window=window, rope_theta=rope_theta)
    raise ModelNotFoundError(
        f"{file}: not a GGUF file; for the other formats name the folder with the configuration and the weights"
    )
