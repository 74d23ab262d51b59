"""Our own OpenAPI document, tried by schemathesis: whatever fits it or just does not, nothing is a 500."""

import warnings
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serving import Served, loader, serving

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    schemathesis = pytest.importorskip("schemathesis", reason="the fuzzing of the protocol needs schemathesis")

PATHS = (
    *("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/tokenize", "/detokenize"),
    *("/health", "/ready", "/v1/models", "/metrics"),
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(loader(tmp_path_factory.mktemp("served"), context=200)) as own:
        yield own


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", PATHS)
def test_nothing_that_is_sent_is_a_500(served: Served, path: str) -> None:
    document = httpx.get(f"{served.url}/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    with httpx.Client(base_url=served.url, timeout=60) as client:
        for method in document["paths"][path]:
            _try(client, method.upper(), path, schema[path][method.upper()].as_strategy())
    served.idle()


def _try(client: httpx.Client, method: str, path: str, cases: st.SearchStrategy[Any]) -> None:
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=cases)
    def attempt(case: object) -> None:
        body = getattr(case, "body", None)
        sent: dict[str, Any] = {"json": body} if isinstance(body, dict | list | str | int | float | bool) else {}
        if isinstance(body, dict) and "model" in body:
            sent["json"] = body | {"model": "tiny"}  # past the first check, to where it is interesting
        response = client.request(method, path, **sent)
        assert response.status_code < 500, response.text
        if response.status_code >= 400:
            assert response.json()["error"]["message"]

    attempt()
