"""A small server on the loopback interface that answers like the Hub does: the model API and file downloads."""

import hashlib
import json
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.loopback import running

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_LARGE = 1000  # from this size on a file is announced with a sha256, as the Hub does with large files


@dataclass
class Repository:
    """What the server says of one repository, and how it misbehaves.

    refuses: "gated" or "private"; breaks_after: how many bytes of a file go out before the connection is cut, once a
    request, as long as `n_breaks` lasts; spoiled: files of which other bytes are sent than were announced.
    """

    files: dict[str, bytes]
    commit: str = COMMIT
    refuses: str | None = None
    breaks_after: int | None = None
    n_breaks: int = 10**9
    spoiled: set[str] = field(default_factory=set)
    ignores_ranges: bool = False
    requests: list[str] = field(default_factory=list)


class HubServer(ThreadingHTTPServer):
    """`repositories` may be changed while it runs. `url` is what to pass as the Hub's endpoint."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.repositories: dict[str, Repository] = {}
        self.status: int | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


def running_hub() -> AbstractContextManager[HubServer]:
    """A server in a thread of its own, stopped at the end."""
    return running(HubServer())


class _Answer(BaseHTTPRequestHandler):
    server: HubServer

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Says nothing."""

    def do_GET(self) -> None:
        if self.server.status is not None:
            return self._send(self.server.status, b"out of order")
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/([^/?]+)(\?.*)?", self.path)
        resolve = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/([^/?]+)", self.path)
        match = api or resolve
        assert match is not None, self.path
        repository = self.server.repositories.get(match[1])
        if repository is None or repository.refuses == "private":
            return self._send(401, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        if match[2] not in ("main", repository.commit):
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        if api is not None:
            return self._send_description(match[1], repository)
        if repository.refuses == "gated":
            return self._send(403, b"", {"X-Error-Code": "GatedRepo"})
        return self._send_file(repository, match[3])

    def _send_description(self, name: str, repository: Repository) -> None:
        siblings = []
        for file, content in repository.files.items():
            git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
            sibling: dict[str, object] = {"rfilename": file, "size": len(content), "blobId": git}
            if len(content) >= _LARGE:
                sha256 = hashlib.sha256(content).hexdigest()
                sibling["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 130}
            siblings.append(sibling)
        body = {"id": name, "modelId": name, "sha": repository.commit, "siblings": siblings, "private": False}
        self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _send_file(self, repository: Repository, file: str) -> None:
        content = repository.files[file]
        if file in repository.spoiled:
            content = content[:-1] + bytes([content[-1] ^ 1])
        asked = self.headers.get("Range", "")
        repository.requests.append(f"{file} {asked}".strip())
        start = 0
        if asked and not repository.ignores_ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": repository.commit}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(206 if start else 200, content[start:], headers, cut=self._cut(repository, len(content) - start))

    def _cut(self, repository: Repository, n_bytes: int) -> int | None:
        if repository.breaks_after is None or n_bytes <= repository.breaks_after or repository.n_breaks == 0:
            return None
        repository.n_breaks -= 1
        return repository.breaks_after

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True
