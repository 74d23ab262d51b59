"""Moderation over HTTP: the model's own scores, prompts that are refused, answers that nobody sees unjudged."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from circius.base.errors import CirciusError
from circius.engine.llm import LLM
from circius.moderate.guard import GUARD_PROMPT
from circius.moderate.policy import Policy
from circius.serve.moderation import Moderation
from tests.serving import MODEL, Served, loader, serving
from tests.unit.engine.tiny import byte_llm

REFUSES = Policy(categories="short", otherwise="refuse", flag_at=1e-9, refuse_at=1e-9, refusal="No, sorry.")
FLAGS = Policy(categories="short", otherwise="flag", flag_at=1e-9)
ALLOWS = Policy(categories="short", otherwise="refuse", flag_at=1.0, refuse_at=1.0)
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Why is it cold?"}], "max_tokens": 6, "temperature": 0}
COMPLETION = {"model": MODEL, "prompt": ["Why is", "it cold"], "max_tokens": 6, "temperature": 0}
RESPONSE = {"model": MODEL, "input": "Why is it cold?", "max_output_tokens": 6, "temperature": 0}
ROUTES = [("/v1/chat/completions", CHAT), ("/v1/completions", COMPLETION), ("/v1/responses", RESPONSE)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(loader(tmp_path_factory.mktemp("plain"), window=None, context=4000)) as own:
        yield own


def moderated(folder: Path, **policies: Policy) -> Any:
    return serving(loader(folder, window=None, context=4000), **policies)


def lines_of(raw: str) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in raw.split("\n") if line.startswith("data: {")]


def post(served: Served, route: str, body: dict[str, Any], **more: Any) -> httpx.Response:
    return httpx.post(served.url + route, json={**body, **more}, timeout=60)


def test_the_scores_are_the_models_own(plain: Served) -> None:
    texts = ["How do I bake bread?", "", "x" * 50]
    for categories in ("short", "long"):
        body = post(plain, "/v1/moderations", {"input": texts, "categories": categories}).json()
        expected = plain.state.llm.moderate(texts, categories=categories)
        assert body["model"] == MODEL
        for result, verdict in zip(body["results"], expected, strict=True):
            scores = {**result["category_scores"], "not_moderated": 1 - sum(result["category_scores"].values())}
            assert scores == pytest.approx(dict(verdict.scores), abs=1e-6)
            assert result["coverage"] == pytest.approx(verdict.coverage, rel=1e-4)
            assert result["flagged"] == (verdict.unsafe >= 0.5) == any(result["categories"].values())
    plain.idle()


def test_thresholds_kinds_and_parts(plain: Served) -> None:
    def result(**fields: Any) -> dict[str, Any]:
        found = post(plain, "/v1/moderations", {"input": "Hi", "categories": "short", **fields})
        assert found.status_code == 200, found.text
        [own] = found.json()["results"]
        return dict(own)

    own = result()
    unsafe = sum(own["category_scores"].values())
    assert result(threshold=unsafe * 0.999)["flagged"]
    assert not result(threshold=min(unsafe * 1.001, 1.0))["flagged"]
    assert result(kind="answer")["category_scores"] != own["category_scores"]
    parts = [{"type": "text", "text": "One"}, {"type": "text", "text": "two"}]
    assert result(input=parts) == result(input="One\n\ntwo")


def test_openais_client_understands_it(plain: Served) -> None:
    client = openai.OpenAI(base_url=f"{plain.url}/v1", api_key="none")
    answer = client.moderations.create(model=MODEL, input=["Hi", "Bye"])
    assert len(answer.results) == 2
    assert answer.id.startswith("modr-")
    assert isinstance(answer.results[0].flagged, bool)
    assert set(answer.results[0].category_scores.model_extra or {}) >= {"malware", "child_abuse"}


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"input": "Hi", "model": "other"}, 404, "model"),
        ({"input": []}, 400, "input"),
        ({"input": [1]}, 400, None),
        ({"input": "Hi", "categories": "medium"}, 400, "categories"),
        ({"input": "Hi", "threshold": 0}, 400, "threshold"),
        ({"input": "Hi", "colour": 1}, 400, "colour"),
        ({"input": [{"type": "image_url", "image_url": {"url": "x"}}]}, 400, None),
        ({}, 400, "input"),
    ],
)
def test_what_cannot_be_honoured_is_refused(
    plain: Served, body: dict[str, Any], status: int, param: str | None
) -> None:
    found = httpx.post(f"{plain.url}/v1/moderations", json=body)
    assert found.status_code == status, found.text
    if param is not None:
        assert found.json()["error"]["param"] == param


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("route", "body"), ROUTES)
def test_a_refused_prompt_is_never_answered(refusing: Served, route: str, body: dict[str, Any], stream: bool) -> None:
    n_before = refusing.engine.counts.n_new_tokens
    found = post(refusing, route, body, stream=stream)
    assert found.status_code == 400
    error = found.json()["error"]
    assert error["code"] == "content_filter"
    assert "refused by this server's policy" in error["message"]
    assert found.headers["x-moderation"].startswith("prompt=refuse ")
    refusing.idle()
    n_judged = refusing.engine.counts.n_new_tokens - n_before
    assert n_judged <= 2 * len(refusing.state.moderation._reflectors["short"].tree.forks), "only one token a question"


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with moderated(tmp_path_factory.mktemp("refusing"), prompt_policy=REFUSES) as own:
        yield own


@pytest.fixture(scope="module")
def withholding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with moderated(tmp_path_factory.mktemp("withholding"), prompt_policy=FLAGS, answer_policy=REFUSES) as own:
        yield own


@pytest.fixture(scope="module")
def allowing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with moderated(tmp_path_factory.mktemp("allowing"), prompt_policy=ALLOWS, answer_policy=ALLOWS) as own:
        yield own


def test_a_refused_answer_is_shown_nowhere(withholding: Served, plain: Served) -> None:
    fields = {"logprobs": True, "top_logprobs": 2}
    said = post(plain, "/v1/chat/completions", CHAT, **fields).json()["choices"][0]["message"]["content"]
    assert said
    found = post(withholding, "/v1/chat/completions", CHAT, **fields)
    [choice] = found.json()["choices"]
    assert choice["message"]["content"] == "No, sorry."
    assert choice["finish_reason"] == "content_filter"
    assert choice["logprobs"] == {"content": []}
    assert found.headers["x-moderation"].startswith("prompt=flag ")
    assert "answer=refuse" in found.headers["x-moderation"]
    chunks = lines_of(post(withholding, "/v1/chat/completions", CHAT, stream=True, **fields).text)
    texts = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks]
    assert "".join(texts) == "No, sorry."
    assert chunks[-1]["choices"][0]["finish_reason"] == "content_filter"
    assert all(not (chunk["choices"][0]["logprobs"] or {}).get("content") for chunk in chunks)
    withholding.idle()


def test_refused_answers_of_the_other_routes(withholding: Served) -> None:
    both = post(withholding, "/v1/completions", COMPLETION, logprobs=1).json()["choices"]
    assert [(own["text"], own["finish_reason"]) for own in both] == [("No, sorry.", "content_filter")] * 2
    assert both[0]["logprobs"]["tokens"] == []
    parts = lines_of(post(withholding, "/v1/completions", COMPLETION, stream=True).text)
    for index in (0, 1):
        own = [part["choices"][0] for part in parts if part["choices"][0]["index"] == index]
        assert "".join(part["text"] for part in own) == "No, sorry."
        assert own[-1]["finish_reason"] == "content_filter"
    body = post(withholding, "/v1/responses", RESPONSE).json()
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "content_filter"})
    assert body["output"][0]["content"][0]["text"] == "No, sorry."
    events = lines_of(post(withholding, "/v1/responses", RESPONSE, stream=True).text)
    assert "".join(each["delta"] for each in events if each["type"] == "response.output_text.delta") == "No, sorry."
    assert events[-1]["type"] == "response.incomplete"
    assert events[-1]["response"]["incomplete_details"] == {"reason": "content_filter"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("route", "body"), ROUTES)
def test_what_passes_is_what_it_would_be(
    allowing: Served, plain: Served, route: str, body: dict[str, Any], stream: bool
) -> None:
    """Held back and judged, but then told as it was: chunk by chunk the same."""

    def told(served: Served) -> list[Any]:
        found = post(served, route, body, stream=stream)
        assert found.status_code == 200, found.text
        assert "x-moderation" not in found.headers
        bodies = lines_of(found.text) if stream else [found.json()]
        changing = {"id", "created", "created_at", "response", "item_id", "item", "usage"}
        return [
            {key: value for key, value in own.items() if key not in changing}
            | {"output": [item["content"] for item in own.get("output") or []]}
            for own in bodies
        ]

    assert told(allowing) == told(plain)


def test_of_several_answers_only_the_bad_ones_are_withheld(tmp_path: Path, plain: Served) -> None:
    asked = {**CHAT, "n": 3, "temperature": 1.0, "seed": 4, "max_tokens": 12}
    choices = post(plain, "/v1/chat/completions", asked).json()["choices"]
    texts = [choice["message"]["content"] for choice in choices]
    scores = [verdict.unsafe for verdict in plain.state.llm.moderate(texts, categories="short", kind="answer")]
    middle = sorted(scores)[1]
    policy = Policy(categories="short", otherwise="refuse", refuse_at=middle * (1 + 1e-6) + 1e-9, flag_at=1.0)
    expected = [score >= policy.refuse_at for score in scores]
    assert sum(expected) == 1
    with moderated(tmp_path, answer_policy=policy) as served:
        found = post(served, "/v1/chat/completions", asked).json()["choices"]
        assert [own["finish_reason"] == "content_filter" for own in found] == expected
        for own, text, is_refused in zip(found, texts, expected, strict=True):
            assert own["message"]["content"] == (policy.refusal if is_refused else text)
        metrics = httpx.get(f"{served.url}/metrics").text
        assert 'circius:moderations_total{action="refuse",model_name="tiny",what="answer"} 1.0' in metrics


def test_safe_prompt_is_the_guard_prompt(plain: Served) -> None:
    """Mistral's name for it; in the v1 template it stands in the first user turn, as any system prompt."""
    guard = {"role": "system", "content": GUARD_PROMPT}
    for own, by_hand in (
        (post(plain, "/v1/chat/completions", CHAT, safe_prompt=True), {**CHAT, "messages": [guard, *CHAT["messages"]]}),
        (post(plain, "/v1/chat/completions", CHAT, safe_prompt=False), CHAT),
    ):  # fmt: skip
        expected = post(plain, "/v1/chat/completions", by_hand).json()
        assert own.json()["choices"] == expected["choices"]
        assert own.json()["usage"]["prompt_tokens"] == expected["usage"]["prompt_tokens"]
    new, old = (
        post(plain, "/v1/responses", RESPONSE, **more).json()
        for more in ({"safe_prompt": True}, {"instructions": GUARD_PROMPT})
    )
    assert new["output"][0]["content"] == old["output"][0]["content"]
    assert new["usage"]["input_tokens"] == old["usage"]["input_tokens"]


def test_a_policy_that_cannot_be_kept_ends_the_start(tmp_path: Path) -> None:
    llm = byte_llm(tmp_path, context=4000)
    for broken in (LLM.of(llm.model, tokenizer=llm.tokenizer), byte_llm(tmp_path, context=300)):
        with pytest.raises(CirciusError, match=r"no chat template|the context is 300"):
            Moderation(broken, None, None, prompts=REFUSES, answers=None)  # type: ignore[arg-type]
