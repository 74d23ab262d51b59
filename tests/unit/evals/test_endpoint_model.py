"""A model behind a real server: the same numbers as in this process, and servers that are busy, away or of no use."""

import json
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from circius.base.errors import InvalidInputError
from circius.evals.endpoint_model import EndpointModel
from circius.evals.engine_model import EngineModel
from circius.evals.item import Choices, Passage, Text
from circius.evals.json_client import JsonClient, ServerError
from tests.serving import MODEL, Served, loader, serving

ASKS = [
    Choices.after("The sea is", [" blue", " red"], "Answer:"),
    Choices(contexts=("Ann", "Beth é"), continuations=(" sang.", " sang.")),
    Choices.after("Trailing ", ["word", "words"]),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(loader(tmp_path_factory.mktemp("served"))) as own:
        yield own


def test_likelihoods_are_those_of_the_engine(served: Served) -> None:
    here = EngineModel(served.state.llm)
    there = EndpointModel(JsonClient(f"{served.url}/v1"), MODEL, concurrency=3)
    heard: list[float] = []
    for own, far in zip(here.loglikelihoods(ASKS), there.loglikelihoods(ASKS, heard.append), strict=True):
        assert far.logprobs == pytest.approx(own.logprobs, abs=1e-4)
        assert far.unconditional == (None if own.unconditional is None else pytest.approx(own.unconditional, abs=1e-4))
        assert far.is_greedy == own.is_greedy
    assert heard[-1] == 1.0
    assert heard == sorted(heard)


def test_texts_are_those_of_the_engine(served: Served) -> None:
    here = EngineModel(served.state.llm)
    there = EndpointModel(JsonClient(served.url), MODEL)
    asks = [Text(prompt=prompt, max_tokens=8) for prompt in ("One", "Two", "Three")]
    assert [answer.text for answer in there.texts(asks)] == [answer.text for answer in here.texts(asks)]


def test_samples_have_seeds_of_their_own(served: Served) -> None:
    there = EndpointModel(JsonClient(served.url), MODEL)
    ask = Text(prompt="One", max_tokens=8, n=4, temperature=1.0, seed=3)
    first, again = (there.texts([ask])[0] for _ in range(2))
    assert [sample.text for sample in first.samples] == [sample.text for sample in again.samples]
    assert len({sample.text for sample in first.samples}) > 1
    assert all(sample.logprob is not None for sample in first.samples)


def test_what_the_server_refuses_is_said_once(served: Served) -> None:
    with pytest.raises(ServerError, match=r"answered 404: .*nobody"):
        EndpointModel(JsonClient(served.url), "nobody").texts([Text(prompt="One", max_tokens=1)])


def test_a_context_without_text_cannot_be_asked(served: Served) -> None:
    with pytest.raises(InvalidInputError, match="needs a context"):
        EndpointModel(JsonClient(served.url), MODEL).loglikelihoods([Choices.after(" ", ["a", "b"])])


def test_passages_need_a_model_in_this_process(served: Served) -> None:
    there = EndpointModel(JsonClient(served.url), MODEL)
    assert there.tokens is None
    with pytest.raises(InvalidInputError, match="no --endpoint"):
        there.passages([Passage(ids=(1, 2))])


Respond = Callable[[int, dict[str, Any], dict[str, str]], tuple[int, Any, dict[str, str]]]


@contextmanager
def _server(respond: Respond) -> Iterator[str]:
    """A server that answers POSTs as `respond` says, which is told how many came before."""
    n_seen = 0

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal n_seen
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            code, said, headers = respond(n_seen, body, dict(self.headers))
            n_seen += 1
            raw = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(code)
            for name, value in {**headers, "Content-Length": str(len(raw))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _choice(text: str) -> dict[str, Any]:
    return {"choices": [{"text": text, "finish_reason": "stop"}]}


def test_a_busy_server_is_asked_again_when_it_says() -> None:
    waits: list[float] = []

    def respond(n: int, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        if n == 0:
            return 429, {"error": {"message": "slow down"}}, {"Retry-After": "7"}
        return (503, {}, {}) if n == 1 else (200, _choice("done"), {})

    with _server(respond) as url:
        client = JsonClient(url, first_wait_s=0.5, sleep=waits.append)
        assert EndpointModel(client, "m").texts([Text(prompt="x", max_tokens=1)])[0].text == "done"
    assert waits == [7.0, 1.0]


def test_a_server_that_stays_busy_is_given_up() -> None:
    with _server(lambda n, body, headers: (503, {"error": {"message": "loading"}}, {})) as url:
        client = JsonClient(url, n_tries=3, sleep=lambda seconds: None)
        with pytest.raises(ServerError, match="answered 503: loading"):
            client.post("completions", {})


def test_a_server_that_is_away_is_named() -> None:
    with _server(lambda n, body, headers: (200, {}, {})) as url:
        pass
    with pytest.raises(ServerError, match=r"could not be reached in 2 tries: .*refused"):
        JsonClient(url, n_tries=2, sleep=lambda seconds: None).post("completions", {})


def test_the_key_is_sent_as_a_bearer_token() -> None:
    seen: list[str | None] = []

    def respond(n: int, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        seen.append(headers.get("Authorization"))
        return 200, _choice(""), {}

    with _server(respond) as url:
        JsonClient(url, key="secret").post("completions", {})
        JsonClient(url).post("completions", {})
    assert seen == ["Bearer secret", None]


def test_stops_that_a_server_ignores_are_cut_here() -> None:
    with _server(lambda n, body, headers: (200, _choice("yes\nQ: more"), {})) as url:
        model = EndpointModel(JsonClient(url), "m")
        assert model.texts([Text(prompt="x", max_tokens=9, stop=("\n",))])[0].text == "yes"


@pytest.mark.parametrize("said", [b"<html>", b"[1]", {"choices": []}, {"choices": [{"text": "x"}]}])
def test_servers_of_no_use_are_told_apart(said: Any) -> None:
    with _server(lambda n, body, headers: (200, said, {})) as url, pytest.raises(ServerError):
        EndpointModel(JsonClient(url), "m").loglikelihoods([Choices.after("a", [" b", " c"])])


@pytest.mark.parametrize("base", ["127.0.0.1:8000", "ftp://x", "http://"])
def test_what_is_no_address_is_refused(base: str) -> None:
    with pytest.raises(InvalidInputError, match="endpoint"):
        JsonClient(base)


def test_v1_is_meant_where_no_path_is_given() -> None:
    assert JsonClient("http://host:1").base == "http://host:1/v1"
    assert JsonClient("https://host/api/v3/").base == "https://host/api/v3"


def test_nothing_is_asked_after_the_first_error(tmp_path: Path) -> None:
    n_asked = 0

    def respond(n: int, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        nonlocal n_asked
        n_asked += 1
        return 400, {"error": {"message": "no"}}, {}

    asks = [Text(prompt=str(n), max_tokens=1) for n in range(200)]
    with _server(respond) as url, pytest.raises(ServerError, match="answered 400: no"):
        EndpointModel(JsonClient(url), "m", concurrency=2).texts(asks)
    assert n_asked < 50


@pytest.mark.parametrize(
    "logprobs",
    [
        [1.0],
        {"token_logprobs": [None, -1.0], "text_offset": [0]},
        {"token_logprobs": [None, "x"], "text_offset": [0, 1], "top_logprobs": [None, {" b": -1.0}]},
        {"token_logprobs": [None, -math.inf], "text_offset": [0, 1]},
        {"token_logprobs": [None, -1.0], "text_offset": [0, None]},
    ],
)
def test_log_probabilities_that_cannot_be_used_are_told(logprobs: Any) -> None:
    said = {"choices": [{"text": "a b", "logprobs": logprobs}]}
    with _server(lambda n, body, headers: (200, said, {})) as url, pytest.raises(ServerError):
        EndpointModel(JsonClient(url), "m").loglikelihoods([Choices.after("a", [" b", " c"])])


def test_what_a_server_cannot_tell_is_not_asked() -> None:
    seen: list[int] = []

    def respond(n: int, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        seen.append(n)
        return 200, _choice("x"), {}

    with _server(respond) as url, pytest.raises(InvalidInputError, match="needs a context"):
        EndpointModel(JsonClient(url), "m").loglikelihoods([Choices.after(" ", ["a", "b"])])
    assert seen == []
