"""A small server on the loopback interface: files by path, and of the Hub's data set API what a download needs."""

import hashlib
import json
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from tests.loopback import running

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FileServer(ThreadingHTTPServer):
    """`files` maps paths to contents, `datasets` repositories to their files; `requests` are the paths asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files: dict[str, bytes] = {}
        self.datasets: dict[str, dict[str, bytes]] = {}
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


def running_server() -> AbstractContextManager[FileServer]:
    """A server in a thread of its own, stopped at the end."""
    return running(FileServer())


class _Answer(BaseHTTPRequestHandler):
    server: FileServer

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Says nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(path)
        if path in self.server.files:
            self._send(200, self.server.files[path])
            return
        for repository, files in self.server.datasets.items():
            if path.startswith(f"/api/datasets/{repository}/tree/"):
                listing = [
                    {"type": "file", "path": name, "size": len(held), "oid": "0"} for name, held in files.items()
                ]
                self._send(200, json.dumps(listing).encode())
                return
            prefix = f"/datasets/{repository}/resolve/refs/convert/parquet/"
            if path.startswith(prefix) and path.removeprefix(prefix) in files:
                held = files[path.removeprefix(prefix)]
                etag = hashlib.sha256(held).hexdigest()
                self._send(200, held, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
                return
        self._send(404, b"not here")

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
