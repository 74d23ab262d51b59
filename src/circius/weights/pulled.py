"""The store of pulled models: one folder a commit, complete once its list of files says so.

<home>/hub/owner/name/<commit>/      the files
<home>/hub/owner/name/<commit>/.pulled.json   which selections of them are complete, with sizes and digests
<home>/hub/owner/name/refs.json      the commit that each revision meant when it was last pulled
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from circius.weights.home import circius_home
from circius.weights.model_name import HubName

_LIST = ".pulled.json"
_REFS = "refs.json"
WHOLE = ""  # the selection of a whole model; a single GGUF file is a selection of its own, under its name


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file of a repository: its size in bytes and its digest, either sha256 or git's own sha1 of a blob."""

    name: str
    size: int
    digest: str


def repository_folder(repository: str) -> Path:
    """Where the commits of a repository are kept."""
    return circius_home() / "hub" / Path(*repository.split("/"))


def find_pulled(name: HubName) -> Path | None:
    """The folder or GGUF file of a model pulled before, if all its files are still there with their sizes."""
    folder = repository_folder(name.repository)
    commit = _read(folder / _REFS).get(name.revision, name.revision)
    if not isinstance(commit, str):
        return None
    snapshot = folder / commit
    files = read_selection(snapshot, name.file or WHOLE)
    if not files or any(not is_whole(snapshot, file) for file in files):
        return None
    return snapshot / name.file if name.file else snapshot


def is_whole(snapshot: Path, file: RemoteFile) -> bool:
    """Whether a file of the snapshot is there with its size; its digest was checked before it got its name."""
    path = snapshot / file.name
    return path.is_file() and path.stat().st_size == file.size


def read_selection(snapshot: Path, selection: str) -> list[RemoteFile]:
    """The files of a selection that was pulled whole; empty when it was not."""
    entries = _read(snapshot / _LIST).get(selection)
    if not isinstance(entries, list):
        return []
    try:
        return [RemoteFile(**entry) for entry in entries]
    except TypeError:
        return []  # written by another version, or damaged


def find_same_file(file: RemoteFile, snapshot: Path) -> Path | None:
    """A file with the same digest in another commit of the same repository."""
    for other in snapshot.parent.iterdir():
        if other != snapshot and other.is_dir():
            recorded = [entry for selection in _read(other / _LIST) for entry in read_selection(other, selection)]
            for entry in recorded:
                if entry.digest == file.digest and is_whole(other, entry):
                    return other / entry.name
    return None


def record_pulled(name: HubName, commit: str, files: list[RemoteFile]) -> Path:
    """Notes that all files of a selection are there, and returns the model's path."""
    folder = repository_folder(name.repository)
    snapshot = folder / commit
    selections = _read(snapshot / _LIST) | {name.file or WHOLE: [asdict(file) for file in files]}
    _write(snapshot / _LIST, selections)
    _write(folder / _REFS, _read(folder / _REFS) | {name.revision: commit})
    return snapshot / name.file if name.file else snapshot


def _read(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # no list or a damaged one: the files count as not pulled, and a pull makes it new
    return content if isinstance(content, dict) else {}


def _write(path: Path, content: Mapping[str, object]) -> None:
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
