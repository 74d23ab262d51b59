"""Answers of a given form: whatever a random model would say, the form holds."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circius.base.errors import ParamsError
from circius.engine.llm import LLM
from circius.engine.params import SamplingParams
from circius.engine.structured import StructuredOutputs
from tests.unit.engine.tiny import byte_llm, tiny_model

pytest.importorskip("llguidance", reason="structured outputs need llguidance")

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    return byte_llm(tmp_path_factory.mktemp("bytes"), window=40, speculate=4)


def _said(llm: LLM, seed: int = 0, temperature: float = 1.0, **form: Any) -> tuple[str, str]:
    params = SamplingParams(
        seed=seed, temperature=temperature, max_tokens=300, structured_outputs=StructuredOutputs(**form)
    )
    output = llm.chat([{"role": "user", "content": "Who?"}], params)[0].outputs[0]
    return output.text, output.finish_reason


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_schema_holds(llm: LLM, seed: int) -> None:
    text, reason = _said(llm, seed, json=PERSON)
    assert reason == "stop", text
    found = json.loads(text)
    assert set(found) == {"name", "age", "tags"}
    assert len(found["name"]) <= 8
    assert 0 <= found["age"] <= 120
    assert set(found["tags"]) <= {"a", "b"}


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_regular_expression_holds(llm: LLM, seed: int) -> None:
    text, reason = _said(llm, seed, regex=r"(ab|c){2,5}-[0-9]{3}")
    assert reason == "stop"
    assert re.fullmatch(r"(ab|c){2,5}-[0-9]{3}", text)


def test_one_of_some_texts(llm: LLM) -> None:
    said = {_said(llm, seed, choice=["yes", 'no "no"', "ja\n"])[0] for seed in range(30)}
    assert said == {"yes", 'no "no"', "ja\n"}


def test_a_grammar_holds(llm: LLM) -> None:
    text, _ = _said(llm, 1, grammar='start: "(" inner ")"\ninner: /[xy]{1,4}/ ("+" /[xy]{1,4}/)?')
    assert re.fullmatch(r"\([xy]{1,4}(\+[xy]{1,4})?\)", text)


def test_any_object(llm: LLM) -> None:
    text, reason = _said(llm, 5, 0.0, json_object=True)
    assert text.startswith("{")
    assert reason == "length" or isinstance(json.loads(text), dict)


def test_the_form_is_the_same_with_neighbours_and_drafts(llm: LLM, tmp_path: Path) -> None:
    forms = [StructuredOutputs(json=PERSON), None, StructuredOutputs(choice=["yes", "no"])]
    params = [SamplingParams(seed=3, max_tokens=120, structured_outputs=form, n=2) for form in forms]
    plain = byte_llm(tmp_path, window=40)
    together = llm.generate(["a", "b", "c"], params)
    alone = [plain.generate(prompt, own)[0] for prompt, own in zip("abc", params, strict=True)]
    assert [[o.text for o in out.outputs] for out in together] == [[o.text for o in out.outputs] for out in alone]


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({}, "one of json, regex, choice, grammar, json_object, got none"),
        ({"regex": "a", "choice": ["b"]}, "got regex, choice"),
        ({"choice": []}, "must be a list of texts"),
        ({"choice": "yes"}, "must be a list of texts"),
        ({"regex": ""}, "1 to"),
        ({"json": "{"}, "is not JSON"),
        ({"json": 7}, "must be an object"),
        ({"json": {"type": "string", "minLenght": 3}}, "/minLenght"),
        ({"json": {"type": "object", "patternProperties": {"a": {}}}}, "/patternProperties"),
        ({"json": {"properties": {"a/b": {"items": {"not": {}}}}}}, "/properties/a~1b/items/not"),
    ],
)
def test_what_is_no_form_is_refused_at_once(form: dict[str, Any], said: str) -> None:
    with pytest.raises(ParamsError, match=re.escape(said)):
        StructuredOutputs(**form)


def test_a_property_may_be_called_like_a_keyword() -> None:
    StructuredOutputs(json={"type": "object", "properties": {"not": {"type": "string"}}})


def test_a_schema_can_be_too_deep() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(70):
        schema = {"type": "array", "items": schema}
    with pytest.raises(ParamsError, match="deeper than 64"):
        StructuredOutputs(json=schema)


@pytest.mark.parametrize(
    "form",
    [
        {"regex": "(a"},
        {"grammar": "start: nothing"},
        {"json": {"type": "strange"}},
        {"json": {"$ref": "#/nowhere"}},
    ],
)
def test_what_the_grammar_cannot_take_is_refused_before_anything_is_computed(llm: LLM, form: dict[str, Any]) -> None:
    params = SamplingParams(structured_outputs=StructuredOutputs(**form))
    with pytest.raises(ParamsError, match="structured_outputs"):
        llm.generate("a", params)


def test_without_a_tokenizer_there_are_no_forms() -> None:
    with pytest.raises(ParamsError, match="need a tokenizer"):
        LLM.of(tiny_model()).generate([3], SamplingParams(structured_outputs=StructuredOutputs(choice=["a"])))


def test_a_form_ends_where_it_ends() -> None:
    with pytest.raises(ParamsError, match="leave out ignore_eos"):
        SamplingParams(structured_outputs=StructuredOutputs(choice=["a"]), ignore_eos=True)
