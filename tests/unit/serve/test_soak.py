"""Thousands of requests, most of them bad in some way: nothing leaks, nothing is stuck."""

import gc
import json
import random
import socket
from pathlib import Path

import httpx
import pytest

from circius.engine.engine import Engine
from circius.engine.engine_limits import EngineLimits
from circius.engine.params import SamplingParams
from circius.engine.request import Limits, make_request
from tests.serving import MODEL, Served, loader, serving
from tests.unit.engine.tiny import tiny_model


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def _raw(served: Served, body: bytes, length: int, reads: int) -> None:
    """Sends some bytes, reads some, and goes away."""
    with socket.create_connection(("127.0.0.1", int(served.url.rsplit(":", 1)[1])), timeout=10) as own:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}"
        own.sendall(head.encode() + b"\r\n\r\n" + body)
        if reads:
            own.recv(reads)


def test_broken_and_leaving_clients_leave_nothing_behind(tmp_path: Path) -> None:
    own = random.Random(1)
    with serving(loader(tmp_path, cache_tokens=64 * 24, max_streams=3)) as served:
        for index in range(150):
            body = json.dumps({
                "model": MODEL, "prompt": "wind" * own.randrange(1, 40), "max_tokens": own.randrange(1, 200),
                "stream": own.random() < 0.7, "n": own.randrange(1, 3), "ignore_eos": True,
            }).encode()  # fmt: skip
            kind = own.randrange(4)
            if kind == 0:
                _raw(served, body[: own.randrange(len(body))], len(body), 0)  # half a body
            elif kind == 1:
                _raw(served, bytes(own.randrange(256) for _ in range(40)), 40, 10)  # no JSON
            else:
                _raw(served, body, len(body), own.choice([0, 10, 500, 3000]))
            if index % 30 == 29:
                served.check()
        served.idle()
        assert httpx.post(f"{served.url}/v1/completions", json={"model": MODEL, "prompt": "a"}).status_code == 200
        served.idle()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is counted by /proc here")
def test_memory_stays_flat_over_ten_thousand_requests() -> None:
    model = tiny_model(window=20)
    engine = Engine(model, limits=EngineLimits(cache_tokens=64 * 32, max_streams=16, chunk_size=256))
    limits = Limits(context=100, vocab_size=61, has_tokenizer=False)
    own = random.Random(0)

    def some(n: int) -> None:
        for _ in range(n):
            prompt = [own.randrange(61) for _ in range(own.randrange(1, 6))]
            job = engine.submit(make_request(prompt, SamplingParams(seed=1, max_tokens=own.randrange(1, 4)), limits))
            if own.random() < 0.05:
                engine.abort(job)
            if len(engine.jobs) > 30:
                engine.step()
        while engine.step():
            pass
        engine.check()
        gc.collect()

    some(2000)
    before = _resident_bytes()
    some(8000)
    assert _resident_bytes() - before < 8 << 20
    assert engine.pool.n_held == 0
