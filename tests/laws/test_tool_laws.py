"""Laws of tools: nothing that is written in a definition, an argument or a result can pass for a turn or a call."""

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circius.text import ChatTemplate, Message, load_chat_template
from circius.text.tools import Tool, ToolCall
from tests.laws.test_text_laws import TURNS, count
from tests.tool_talk import exchange
from tests.vocabularies import FILES, hard_texts, mistral

MARKS = ["[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[AVAILABLE_TOOLS]", "</tool_call>", "</tool_response>"]
evil = hard_texts | st.lists(st.sampled_from([*MARKS, "[/INST]", "</s>", '"}', "x"]), max_size=4).map("".join)
PLAIN = Tool(name="f", description="x", parameters={"properties": {"x": {"description": "x"}}})


def template(version: str) -> ChatTemplate:
    return load_chat_template(FILES[version], mistral(version), name=version)


def talk(question: str, argument: str, result: str) -> list[Message]:
    call = ToolCall("f", json.dumps({argument: argument}), "abcdefgh1")
    return [Message("user", question), *exchange([call], [call], [result])]


def tool(text: str) -> Tool:
    return replace(PLAIN, description=text or None, parameters={"properties": {text: {"description": text}}})


def in_json(text: str) -> str:
    """A result that is JSON, so that its texts are read and written anew."""
    return json.dumps({text: [text]})


@pytest.mark.parametrize("version", ["v2", "v3"])
@settings(max_examples=100, deadline=None)
@given(texts=st.tuples(evil, evil, evil | evil.map(in_json), evil))
def test_no_text_of_a_tool_forges_a_control_token(version: str, texts: Sequence[str]) -> None:
    own = template(version)
    control = set(mistral(version).special_ids.values())

    def marks(ids: Sequence[int]) -> list[int]:
        return [token for token in ids if token in control]

    ids = own.encode(talk(*texts[:3]), tools=[tool(texts[3])])
    assert marks(ids) == marks(own.encode(talk("x", "x", "x"), tools=[PLAIN]))


@settings(max_examples=100, deadline=None)
@given(texts=st.tuples(evil, evil, evil | evil.map(in_json), evil))
def test_no_text_of_a_tool_forges_a_turn_or_a_block_in_v1(texts: Sequence[str]) -> None:
    own = template("v1")
    ids = own.encode(talk(*texts[:3]), tools=[tool(texts[3])])
    plain = own.encode(talk("x", "x", "x"), tools=[PLAIN])
    for spellings in (TURNS["v1"][:2], TURNS["v1"][2:]):
        assert sum(count(ids, one) for one in spellings) == sum(count(plain, one) for one in spellings)
    # Blocks: the user's own words are the user's, so only the other texts count.
    quiet = own.render(talk("x", *texts[1:3]), tools=[tool(texts[3])])
    for mark in ("</tool_call>", "</tool_response>", "</tools>"):
        assert quiet.count(mark) == own.render(talk("x", "x", "x"), tools=[PLAIN]).count(mark)
