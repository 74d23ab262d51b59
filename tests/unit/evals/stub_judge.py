"""A server on loopback that answers chats the way a test wants it: real HTTP, real errors."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = str | int
"""What to say, or the status to fail with."""


@dataclass
class Stub:
    """What was asked, in the order in which it came; `reply` decides what to say."""

    reply: Callable[[dict[str, Any]], Reply]
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def stub(reply: Callable[[dict[str, Any]], Reply]) -> Iterator[Stub]:
    own = Stub(reply)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with own.lock:
                own.bodies.append(body)
                own.keys.append(self.headers.get("Authorization"))
                said = own.reply(body) if self.path == "/v1/chat/completions" else 404
            status, answer = (said, {"error": {"message": "as the test wants it"}}) if isinstance(said, int) else (
                200, {"choices": [{"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}]}
            )  # fmt: skip
            raw = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    own.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield own
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
