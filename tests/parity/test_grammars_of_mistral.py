"""Forms of answers over Mistral's real vocabularies: any walk through what is allowed has the form, text and all."""

import json
import re
from functools import cache
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circius.engine.grammars import Grammars
from circius.engine.structured import StructuredOutputs
from circius.text import StreamDecoder
from tests.vocabularies import FILES, mistral

pytest.importorskip("llguidance", reason="structured outputs need llguidance")

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "maximum": 99, "minimum": 0},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


@cache
def _grammars(version: str) -> Grammars:
    tokenizer = mistral(version)
    return Grammars(tokenizer, vocab_size=tokenizer.vocab_size, end_ids=tokenizer.eos_ids)


def _walk(version: str, form: StructuredOutputs, seed: int) -> str:
    """A text whose tokens were drawn evenly from those that were allowed."""
    tokenizer, own, matcher = mistral(version), Random(seed), _grammars(version).constraint(form)()
    ids: list[int] = []
    while True:
        bits = np.unpackbits(np.frombuffer(matcher.allowed(), np.uint8), bitorder="little", count=tokenizer.vocab_size)
        allowed = np.flatnonzero(bits).tolist()
        assert allowed, "a form that cannot go on"
        # Ends are rare among so many tokens: taken when they may be.
        ends = [token for token in allowed if token in tokenizer.eos_ids]
        token = ends[0] if ends else own.choice(allowed)
        if token in tokenizer.eos_ids:
            break
        assert not tokenizer.is_special(token)
        matcher.accept(token)
        ids.append(token)
    decoder = StreamDecoder(tokenizer)
    return decoder.push(ids) + decoder.flush()


@pytest.mark.parametrize("version", FILES)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_json_by_a_schema(version: str, seed: int) -> None:
    found = json.loads(_walk(version, StructuredOutputs(json=PERSON), seed))
    assert set(found) == {"name", "age"}
    assert len(found["name"]) <= 12
    assert 0 <= found["age"] <= 99


@pytest.mark.parametrize("version", FILES)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_regular_expressions_and_choices(version: str, seed: int) -> None:
    pattern = r"(mistral|bise|föhn)( [a-zé]{1,6}){1,3}\."
    assert re.fullmatch(pattern, _walk(version, StructuredOutputs(regex=pattern), seed))
    choices = ["kalt und trocken", "warm", "[INST]"]
    assert _walk(version, StructuredOutputs(choice=choices), seed) in choices
