"""One repository from the Hub into the store: resumed, checked against its digests, complete or not there."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from huggingface_hub import HfApi, constants, get_session, hf_hub_url
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # exported, but not in mypy's sense
    WeakFileLock,
    build_hf_headers,
    hf_raise_for_status,
)

from circius.base.errors import DownloadError, StorageError
from circius.weights.hub_errors import TRANSFER_ERRORS, explain, is_unreachable
from circius.weights.model_name import HubName
from circius.weights.pulled import RemoteFile, find_pulled, find_same_file, is_whole, record_pulled, repository_folder
from circius.weights.select_files import select_files
from circius.weights.target import check_space

Progress = Callable[[int, int], None]
Note = Callable[[str], None]

_CHUNK_BYTES = 1 << 20
_N_ATTEMPTS = 5  # in a row without one new byte
_FIRST_WAIT_S = 0.5
_CLIENT = "circius"


def pull_repository(
    name: HubName, *, endpoint: str | None = None, on_progress: Progress | None = None, on_note: Note | None = None
) -> Path:
    """Downloads what is missing of a model and returns its folder, or its GGUF file.

    Interrupted downloads go on where they stopped, in this call as in a later one. A file gets its name only once
    its digest is right. Where the Hub cannot be reached, what was pulled before is returned, and `on_note` told.

    endpoint: the Hub's address; None is huggingface_hub's own choice.
    on_progress: called with the bytes that are there and those of the whole selection.

    Raises:
        DownloadError: anything that went wrong, in one line.
    """
    try:
        commit, files = _look_up(name, endpoint)
    except TRANSFER_ERRORS as error:
        pulled = find_pulled(name) if is_unreachable(error) else None
        if pulled is None:
            raise explain(error, name) from error
        if on_note is not None:
            on_note(f"the Hub cannot be reached: using {name} as pulled before")
        return pulled
    try:
        folder = repository_folder(name.repository)
        snapshot = folder / commit
        snapshot.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(folder / ".lock"):
            _fetch_all(name, files, commit, snapshot, endpoint, on_progress)
            return record_pulled(name, commit, files)
    except StorageError as error:
        raise DownloadError(str(error)) from error
    except TRANSFER_ERRORS as error:
        raise explain(error, name) from error


def _look_up(name: HubName, endpoint: str | None) -> tuple[str, list[RemoteFile]]:
    api = HfApi(endpoint=endpoint, library_name=_CLIENT)
    found = api.model_info(
        name.repository, revision=name.revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
    )
    files = []
    for sibling in found.siblings or []:
        digest = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
        if "/" in sibling.rfilename or "\\" in sibling.rfilename:
            continue  # a model's files lie at the top; and no name may lead out of the folder
        if sibling.size is None or not digest:
            raise DownloadError(f"the Hub gave no size or digest for {sibling.rfilename} of {name.repository}")
        files.append(RemoteFile(name=sibling.rfilename, size=sibling.size, digest=digest))
    if not found.sha or not found.sha.isalnum():
        raise DownloadError(f"the Hub gave no commit for {name}")
    return found.sha, select_files(name, files)


def _fetch_all(
    name: HubName,
    files: list[RemoteFile],
    commit: str,
    snapshot: Path,
    endpoint: str | None,
    on_progress: Progress | None,
) -> None:
    n_total = sum(file.size for file in files)
    n_there = {file.name: _bytes_there(snapshot, file) for file in files}
    check_space(snapshot, n_total - sum(n_there.values()))

    def report(file: RemoteFile, n_bytes: int) -> None:
        n_there[file.name] = n_bytes
        if on_progress is not None:
            on_progress(sum(n_there.values()), n_total)

    for file in files:
        if not is_whole(snapshot, file) and not _link_unchanged(file, snapshot):
            url = hf_hub_url(name.repository, file.name, revision=commit, endpoint=endpoint)
            _fetch(url, file, snapshot, lambda n_bytes, file=file: report(file, n_bytes))  # type: ignore[misc]
        report(file, file.size)


def _fetch(url: str, file: RemoteFile, snapshot: Path, on_bytes: Callable[[int], None]) -> None:
    partial = _partial(snapshot, file)
    with partial.open("ab") as stream:
        n_failures = 0
        while (n_before := stream.tell()) < file.size:
            try:
                _receive(url, stream, on_bytes)
            except TRANSFER_ERRORS as error:
                n_failures = 1 if stream.tell() > n_before else n_failures + 1
                if not is_unreachable(error) or n_failures == _N_ATTEMPTS:
                    raise
                time.sleep(_FIRST_WAIT_S * 2**n_failures)
    if partial.stat().st_size != file.size or _digest(partial, file) != file.digest:
        partial.unlink()
        raise DownloadError(
            f"{file.name} arrived damaged: its size or checksum is not what the Hub says. It was deleted: pull again"
        )
    partial.replace(snapshot / file.name)


def _receive(url: str, stream: BinaryIO, on_bytes: Callable[[int], None]) -> None:
    """Asks for what is missing behind the stream's end and appends it, as far as the connection holds."""
    headers = build_hf_headers(library_name=_CLIENT)
    headers |= {"Range": f"bytes={stream.tell()}-", "Accept-Encoding": "identity"}
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
        if response.status_code >= 400:
            response.read()
        hf_raise_for_status(response)
        if response.status_code != 206:  # the server sends the file from its start
            stream.truncate(0)
        for chunk in response.iter_bytes():  # as they come: gathering them would lose some when the connection breaks
            stream.write(chunk)
            on_bytes(stream.tell())


def _bytes_there(snapshot: Path, file: RemoteFile) -> int:
    if is_whole(snapshot, file):
        return file.size
    partial = _partial(snapshot, file)
    return min(partial.stat().st_size, file.size) if partial.is_file() else 0


def _partial(snapshot: Path, file: RemoteFile) -> Path:
    """Where a file grows; named after its digest, so that two versions never mix."""
    return snapshot / f".{file.name}.{file.digest[:16]}.part"


def _link_unchanged(file: RemoteFile, snapshot: Path) -> bool:
    """Takes the file over from another commit of the repository, if one has it."""
    other = find_same_file(file, snapshot)
    if other is None:
        return False
    try:
        (snapshot / file.name).hardlink_to(other)
    except OSError:  # a file system without links: it is downloaded instead
        return False
    return True


def _digest(path: Path, file: RemoteFile) -> str:
    """sha256 of the content for large files, git's sha1 for the small ones that git itself stores."""
    if len(file.digest) == 64:
        running = hashlib.sha256()
    else:
        running = hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            running.update(chunk)
    return running.hexdigest()
