"""Keys, limits, health, and what becomes of clients that leave."""

import socket
import threading
import time
from pathlib import Path

import httpx
import pytest

from circius.base.errors import InvalidInputError
from circius.engine.engine import Engine
from circius.engine.llm import LLM
from circius.serve.config import ServeConfig
from tests.serving import MODEL, Served, loader, serving

LONG = {"model": MODEL, "prompt": "wind", "max_tokens": 380, "temperature": 0, "ignore_eos": True}


def test_health_ready_and_models(client: httpx.Client) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").status_code == 200
    listed = client.get("/v1/models").json()["data"]
    assert [model["id"] for model in listed] == [MODEL, "alias"]
    assert listed[0]["max_model_len"] == 400
    assert client.get("/v1/models/alias").json()["root"] == MODEL
    assert client.get("/v1/models/other").status_code == 404


def test_tokens_there_and_back(client: httpx.Client) -> None:
    found = client.post("/tokenize", json={"prompt": "Über", "return_token_strs": True}).json()
    assert found["count"] == len(found["tokens"]) == len(found["token_strs"])
    assert found["max_model_len"] == 400
    back = client.post("/detokenize", json={"tokens": found["tokens"]}).json()["prompt"]
    assert back.endswith("Über")
    chat = client.post("/tokenize", json={"messages": [{"role": "user", "content": "Hi"}]})
    assert chat.json()["count"] > 2
    assert client.post("/tokenize", json={}).status_code == 400
    assert client.post("/detokenize", json={"tokens": [9999]}).json()["error"]["param"] == "tokens"


def test_metrics_under_both_names(client: httpx.Client) -> None:
    client.post("/v1/completions", json={"model": MODEL, "prompt": "a", "max_tokens": 3})
    text = client.get("/metrics").text
    for prefix in ("circius", "vllm"):
        assert f'{prefix}:num_requests_running{{model_name="{MODEL}"}} 0.0' in text
        assert f'{prefix}:time_to_first_token_seconds_count{{model_name="{MODEL}"}}' in text
        assert f'{prefix}:generation_tokens_total{{model_name="{MODEL}"}}' in text


def test_the_times_between_tokens_are_counted_once_each(client: httpx.Client) -> None:
    def count() -> float:
        text = client.get("/metrics").text
        line = next(line for line in text.splitlines() if line.startswith("vllm:inter_token_latency_seconds_count"))
        return float(line.split()[-1])

    before = count()
    body = {"model": MODEL, "prompt": "a", "max_tokens": 5, "n": 2, "seed": 1, "ignore_eos": True}
    assert client.post("/v1/completions", json=body).status_code == 200
    assert count() - before == 2 * 4


def test_a_page_and_nothing_beside_it(client: httpx.Client) -> None:
    page = client.get("/")
    assert "<title>circius</title>" in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert client.get("/page/app.js").headers["content-type"].startswith("text/javascript")
    for name in ("nothing.js", "../app.py", "%2e%2e/app.py", "..%2fapp.py"):
        assert client.get(f"/page/{name}").status_code == 404


def test_request_ids_go_there_and_back(client: httpx.Client) -> None:
    assert client.get("/health", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert client.get("/health", headers={"x-request-id": "a b"}).headers["x-request-id"] != "a b"
    assert len(client.get("/nowhere").headers["x-request-id"]) == 32


def test_unknown_paths_and_methods_have_errors_of_the_same_form(client: httpx.Client) -> None:
    assert client.get("/nowhere").json()["error"]["type"] == "not_found_error"
    assert client.get("/v1/completions").status_code == 405


@pytest.mark.parametrize("key", ["", "Bearer", "Bearer wrong-key", "Basic secret-key-1", "Bearer secret-key-1x"])
def test_a_key_is_asked_for(tmp_path: Path, key: str) -> None:
    with serving(loader(tmp_path), keys=("secret-key-1", "secret-key-2")) as served:
        response = httpx.get(f"{served.url}/v1/models", headers={"authorization": key} if key else {})
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert httpx.get(f"{served.url}/health").status_code == 200
        for own in ("secret-key-1", "secret-key-2"):
            headers = {"authorization": f"Bearer {own}"}
            assert httpx.get(f"{served.url}/v1/models", headers=headers).status_code == 200


def test_two_keys_never_find_each_others_prompts(tmp_path: Path) -> None:
    with serving(loader(tmp_path), keys=("secret-key-1", "secret-key-2")) as served:

        def cached(key: str) -> int:
            response = httpx.post(
                f"{served.url}/v1/completions", headers={"authorization": f"Bearer {key}"},
                json={"model": MODEL, "prompt": "a" * 200, "max_tokens": 1},
            )  # fmt: skip
            return int(response.json()["usage"]["prompt_tokens_details"]["cached_tokens"])

        assert [cached(key) > 0 for key in ("secret-key-1", "secret-key-1", "secret-key-2", "secret-key-2")] == [
            False, True, False, True,
        ]  # fmt: skip


def test_no_key_no_way_out_of_this_machine() -> None:
    with pytest.raises(InvalidInputError, match="can be reached from other machines"):
        ServeConfig(host="0.0.0.0", names=("a",))
    ServeConfig(host="0.0.0.0", names=("a",), keys=("12345678",))
    ServeConfig(host="0.0.0.0", names=("a",), is_open=True)
    with pytest.raises(InvalidInputError, match="at least 8"):
        ServeConfig(names=("a",), keys=("short",))
    assert "12345678" not in repr(ServeConfig(names=("a",), keys=("12345678",)))


@pytest.mark.parametrize("is_announced", [True, False])
def test_large_bodies_are_refused(tmp_path: Path, is_announced: bool) -> None:
    with serving(loader(tmp_path), max_body_bytes=2000) as served:
        body = b'{"model": "tiny", "prompt": "' + b"a" * 5000 + b'"}'
        content = body if is_announced else (body[i : i + 500] for i in range(0, len(body), 500))
        response = httpx.post(
            f"{served.url}/v1/completions", content=content, headers={"content-type": "application/json"}
        )
        assert response.status_code == 413, response.text
        assert "2000 bytes" in response.json()["error"]["message"]


def test_too_many_at_once_are_sent_away_with_a_time_to_come_back(tmp_path: Path) -> None:
    with serving(loader(tmp_path, max_streams=1), max_open=2) as served:
        with httpx.Client(base_url=served.url, timeout=60) as client:
            streams = [client.stream("POST", "/v1/completions", json=LONG | {"stream": True}) for _ in range(2)]
            for stream in streams:
                assert stream.__enter__().status_code == 200
            while served.state.worker.n_open < 2:
                time.sleep(0.01)
            response = client.post("/v1/completions", json=LONG)
            assert (response.status_code, response.headers["retry-after"]) == (503, "1")
            assert response.json()["error"]["code"] == "queue_full"
            assert 'circius:admission_rejections_total{model_name="tiny"} 1.0' in client.get("/metrics").text
            for stream in streams:
                stream.__exit__(None, None, None)
        served.idle()


def test_while_loading_it_says_so(tmp_path: Path) -> None:
    may_load = threading.Event()

    def load() -> tuple[LLM, Engine]:
        may_load.wait()
        return loader(tmp_path)()

    with serving(load, waits=False) as served:
        assert httpx.get(f"{served.url}/health").status_code == 503
        assert httpx.get(f"{served.url}/ready").status_code == 503
        response = httpx.post(f"{served.url}/v1/completions", json=LONG)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "loading")
        may_load.set()
        while httpx.get(f"{served.url}/health").status_code != 200:
            time.sleep(0.01)


@pytest.mark.parametrize("is_stream", [True, False])
def test_a_client_that_leaves_frees_its_place_within_a_step(served: Served, is_stream: bool) -> None:
    """A raw socket, so that leaving is really leaving."""
    import json

    body = json.dumps(LONG | {"stream": is_stream}).encode()
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", int(served.url.rsplit(":", 1)[1]))) as own:
            own.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                + f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            while not served.engine.n_running:
                time.sleep(0.001)
        n_steps = served.engine.counts.n_steps
        while served.state.worker.n_open:
            time.sleep(0.0005)
        assert served.engine.counts.n_steps - n_steps < 40, "it was computed long after anybody listened"
        served.idle()
    assert served.engine.counts.n_ended.get("abort", 0) >= 5


def test_a_slow_reader_stops_nobody(served: Served) -> None:
    import json

    body = json.dumps(LONG | {"stream": True, "logprobs": 5}).encode()
    with socket.create_connection(("127.0.0.1", int(served.url.rsplit(":", 1)[1]))) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        slow.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            + f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        answer = httpx.post(f"{served.url}/v1/completions", json=LONG | {"max_tokens": 20}, timeout=60)
        assert answer.status_code == 200
    served.idle()


def test_a_request_may_take_only_so_long(tmp_path: Path) -> None:
    with serving(loader(tmp_path), timeout_s=0.05) as served:
        response = httpx.post(f"{served.url}/v1/completions", json=LONG, timeout=60)
        assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout")
        served.idle()


def test_stopping_lets_what_is_open_end(tmp_path: Path) -> None:
    found: list[httpx.Response] = []
    with serving(loader(tmp_path)) as served:
        asks = threading.Thread(
            target=lambda: found.append(httpx.post(f"{served.url}/v1/completions", json=LONG, timeout=60))
        )
        asks.start()
        while not served.engine.n_running:
            time.sleep(0.001)
    asks.join()
    assert found[0].status_code == 200
    assert found[0].json()["usage"]["completion_tokens"] == 380
