"""Adapters on a server: named like models, several in one batch, loaded and forgotten while it runs."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from circius.base.errors import InvalidInputError
from circius.serve.config import ServeConfig
from circius.weights.adapter import write_adapter
from tests.adapters import random_adapter
from tests.serving import MODEL, Served, loader, serving
from tests.unit.engine.tiny import BYTE_VOCAB, tiny_model

ADMIN, CLIENT = "the-administrators-key", "some-clients-own-key"
SHAPE = tiny_model(vocab_size=BYTE_VOCAB).config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shelf = tmp_path_factory.mktemp("shelf")
    for seed in (1, 2):
        write_adapter(shelf / f"number-{seed}", random_adapter(SHAPE, seed=seed))
    write_adapter(shelf.parent / "outside", random_adapter(SHAPE, seed=9), overwrite=True)
    (shelf / "link").symlink_to(shelf.parent / "outside")
    return shelf


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Served]:
    with serving(
        loader(tmp_path_factory.mktemp("model")), keys=(CLIENT,), admin_keys=(ADMIN,), adapter_folder=folder,
        adapters=(("first", folder / "number-1"),), max_adapters=2,
    ) as own:  # fmt: skip
        yield own


@pytest.fixture
def admin(server: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60, headers={"Authorization": f"Bearer {ADMIN}"}) as own:
        yield own
        own.post("/v1/unload_lora_adapter", json={"lora_name": "second"})
    server.idle()


def _said(client: httpx.Client, model: str, **fields: object) -> str:
    body = {"model": model, "prompt": "Once", "max_tokens": 12, "temperature": 0, **fields}
    response = client.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    assert response.json()["model"] == model
    return str(response.json()["choices"][0]["text"])


def test_requests_choose_by_name_and_run_together(admin: httpx.Client) -> None:
    assert admin.post("/v1/load_lora_adapter", json={"lora_name": "second", "lora_path": "number-2"}).status_code == 200
    names = [MODEL, "first", "second"]
    alone = {name: _said(admin, name) for name in names}
    assert len(set(alone.values())) == 3, "the adapters change nothing"
    with ThreadPoolExecutor(9) as pool:
        together = list(pool.map(lambda name: _said(admin, name), names * 3))
    assert together == [alone[name] for name in names * 3]
    listed = {model["id"]: model for model in admin.get("/v1/models").json()["data"]}
    assert listed.keys() == {MODEL, "alias", "first", "second"}
    assert listed["second"]["parent"] == MODEL
    assert listed["second"]["lora_rank"] == 3
    assert "parent" not in listed[MODEL]


@pytest.mark.parametrize("route", ["/v1/chat/completions", "/v1/responses", "/v1/embeddings"])
def test_every_route_heeds_the_name(admin: httpx.Client, route: str) -> None:
    own = {
        "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8, "temperature": 0},
        "/v1/responses": {"input": "Hi", "max_output_tokens": 16, "temperature": 0},
        "/v1/embeddings": {"input": "Hi"},
    }[route]
    said = []
    for model in (MODEL, "first"):
        body = admin.post(route, json={"model": model, **own}).json()
        said.append(body.get("choices") or body.get("output") or body.get("data"))
    assert said[0] is not None
    texts = [str([{k: v for k, v in part.items() if k != "id"} for part in each]) for each in said]
    assert texts[0] != texts[1]


def test_streams_heed_it_too(admin: httpx.Client) -> None:
    body = {"model": "first", "prompt": "Once", "max_tokens": 12, "temperature": 0, "stream": True}
    with admin.stream("POST", "/v1/completions", json=body) as response:
        lines = [line for line in response.iter_lines() if line.startswith("data: {")]
    import json

    joined = "".join(json.loads(line[6:])["choices"][0]["text"] for line in lines)
    assert joined == _said(admin, "first")


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"lora_name": "first", "lora_path": "number-2"}, 400, "adapter_exists"),
        ({"lora_name": MODEL, "lora_path": "number-2"}, 400, "adapter_exists"),
        ({"lora_name": "second", "lora_path": "nowhere"}, 404, "adapter_not_found"),
        ({"lora_name": "second", "lora_path": "../outside"}, 404, "adapter_not_found"),
        ({"lora_name": "second", "lora_path": "link"}, 404, "adapter_not_found"),
        ({"lora_name": "second", "lora_path": "/etc"}, 404, "adapter_not_found"),
        ({"lora_name": "second", "lora_path": "a\0b"}, 404, "adapter_not_found"),
        ({"lora_name": "second", "lora_path": "."}, 400, "bad_adapter"),
        ({"lora_name": "a b", "lora_path": "number-2"}, 400, None),
    ],
)
def test_what_cannot_be_loaded(admin: httpx.Client, fields: dict[str, str], status: int, code: str | None) -> None:
    response = admin.post("/v1/load_lora_adapter", json=fields)
    assert response.status_code == status, response.text
    assert response.json()["error"]["code"] == code


def test_only_administrators_may_and_only_so_many(server: Served, admin: httpx.Client) -> None:
    own = {"lora_name": "second", "lora_path": "number-2"}
    client = {"Authorization": f"Bearer {CLIENT}"}
    assert httpx.post(f"{server.url}/v1/load_lora_adapter", json=own).status_code == 401
    assert httpx.post(f"{server.url}/v1/load_lora_adapter", json=own, headers=client).status_code == 403
    assert (
        httpx.post(f"{server.url}/v1/unload_lora_adapter", json={"lora_name": "first"}, headers=client).status_code
        == 403
    )
    assert admin.post("/v1/load_lora_adapter", json=own).status_code == 200
    third = admin.post("/v1/load_lora_adapter", json={"lora_name": "third", "lora_path": "number-2"})
    assert third.status_code == 409
    assert admin.post("/v1/unload_lora_adapter", json={"lora_name": "second"}).status_code == 200
    assert admin.post("/v1/unload_lora_adapter", json={"lora_name": "second"}).status_code == 404
    gone = admin.post("/v1/completions", json={"model": "second", "prompt": "x", "max_tokens": 1})
    assert gone.status_code == 404


def test_a_server_without_the_folder_loads_none(served: Served) -> None:
    response = httpx.post(f"{served.url}/v1/load_lora_adapter", json={"lora_name": "a", "lora_path": "b"})
    assert response.status_code == 404
    assert "--adapter-folder" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"adapters": (("a", Path("x")), ("a", Path("y")))}, "the name 'a'"),
        ({"adapters": (("m", Path("x")),)}, "the name 'm'"),
        ({"adapter_folder": Path("nowhere")}, "not there"),
        ({"adapter_folder": Path(), "keys": ("12345678",)}, "--admin-key-file"),
        ({"admin_keys": ("short",)}, "8 printable"),
        ({"max_adapters": 1, "adapters": (("a", Path("x")), ("b", Path("y")))}, "no more than 1"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        ServeConfig(names=("m",), **settings)  # type: ignore[arg-type]
