"""Answers that are free until they begin a call: where that is, and what may stand behind it."""

from collections.abc import Sequence
from functools import cache
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circius.engine.grammars import Grammars
from circius.engine.tool_constraint import AllBut, LazyCalls
from circius.engine.tool_grammar import calls_grammar
from circius.text import StreamDecoder
from circius.text.tool_form import DESCRIBED, CallForm
from circius.text.tool_reader import CallReader
from tests.tool_talk import ADD, CLOCK, WEATHER
from tests.vocabularies import mistral

pytest.importorskip("llguidance", reason="calls are held to their form by llguidance")

TOOLS = (WEATHER, CLOCK, ADD)
NAMES = [tool.name for tool in TOOLS]
PLAIN = CallForm(begin="", between="", end="", arguments_key="parameters", most_calls=1)


@cache
def grammars() -> Grammars:
    tokenizer = mistral("v1")
    return Grammars(tokenizer, vocab_size=tokenizer.vocab_size, end_ids=tokenizer.eos_ids)


@cache
def grammar(form: str) -> str:
    own = {"described": DESCRIBED, "plain": PLAIN}[form]
    return calls_grammar(own, TOOLS, grammars().problem, parallel=True, begins=False)


def lazy(form: str) -> LazyCalls:
    own = {"described": DESCRIBED, "plain": PLAIN}[form]
    tokenizer = mistral("v1")
    make = grammars().matcher(grammar(form), "tools")
    return LazyCalls(own, make, tokenizer=tokenizer, vocab_size=tokenizer.vocab_size)


def allowed(constraint: LazyCalls) -> list[int]:
    bits = np.unpackbits(np.frombuffer(constraint.allowed(), np.uint8), bitorder="little")
    return [int(token) for token in np.flatnonzero(bits[: mistral("v1").vocab_size])]


def is_free(constraint: LazyCalls) -> bool:
    return len(allowed(constraint)) == mistral("v1").vocab_size


def finish(constraint: LazyCalls, begun: Sequence[int], seed: int) -> list[int]:
    """The answer's tokens, the rest drawn evenly from those that are allowed."""
    own, ids = Random(seed), list(begun)
    while True:
        possible = allowed(constraint)
        if 2 in possible:
            return ids
        ids.append(own.choice(possible))
        constraint.accept(ids[-1])


def read(form: CallForm, ids: Sequence[int]) -> tuple[str, CallReader]:
    reader = CallReader(form, NAMES, is_held=True)
    decoder = StreamDecoder(mistral("v1"))
    text = "".join([reader.push(decoder.push([token])).text for token in ids])
    return text + reader.push(decoder.flush()).text + reader.end().text, reader


@pytest.mark.parametrize("form", ["described", "plain"])
@settings(max_examples=15, deadline=None)
@given(words=st.text("abc <>{}\n", max_size=10), seed=st.integers(0, 10**6))
def test_what_follows_the_mark_is_calls(form: str, words: str, seed: int) -> None:
    own = {"described": DESCRIBED, "plain": PLAIN}[form]
    words = words if form == "described" else " " * len(words)
    constraint = lazy(form)
    begun = mistral("v1").encode(words + str(own.trigger))
    for token in begun:
        assert is_free(constraint)
        constraint.accept(token)
    assert not is_free(constraint)
    text, reader = read(own, finish(constraint, begun, seed))
    assert reader.is_whole
    assert reader.calls
    assert text.strip() == words.strip()


@pytest.mark.parametrize("end", [">", ">{", ">{@", ">>", "></", '>"', ">("])
def test_a_token_that_ends_the_mark_and_goes_on(end: str) -> None:
    """It is held exactly if the form can begin with the rest, and read as calls exactly then."""
    tokenizer = mistral("v1")
    constraint = lazy("described")
    joined = tokenizer.id_of(end)
    assert joined is not None
    ids = [*tokenizer.encode("<tool_call"), joined]
    for token in ids:
        constraint.accept(token)
    fits = end in (">", ">{")
    assert is_free(constraint) != fits
    if fits:
        _, reader = read(DESCRIBED, finish(constraint, ids, 1))
        assert reader.is_whole
    else:
        text, reader = read(DESCRIBED, ids)
        assert (text, reader.calls) == (tokenizer.decode(ids), [])


def test_an_object_counts_only_at_the_beginning() -> None:
    constraint = lazy("plain")
    for token in mistral("v1").encode('So: {"name": "now", '):
        constraint.accept(token)
    assert is_free(constraint)


@pytest.mark.parametrize("size", [1, 7, 8, 9, 32000])
def test_all_but_one_token(size: int) -> None:
    for token in {0, size // 2, size - 1}:
        bits = np.unpackbits(np.frombuffer(AllBut(token, vocab_size=size).allowed(), np.uint8), bitorder="little")
        assert [index for index in range(size) if not bits[index]] == [token]
