"""Messages, and the conversations that are refused: the error names the message."""

from typing import Any

import pytest

from circius.base.errors import TemplateError
from circius.text import ChatTemplate, Message, load_chat_template
from circius.text.tools import ToolCall
from tests.vocabularies import FILES, mistral

CALL = {"id": "call_1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
U, A, S = ({"role": role, "content": "x"} for role in ("user", "assistant", "system"))


C = {"role": "assistant", "content": None, "tool_calls": [CALL]}


def result(own_id: str | None) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": own_id, "content": "12"}


@pytest.fixture(scope="module")
def template() -> ChatTemplate:
    return load_chat_template(FILES["v3"], mistral("v3"))


def test_from_mapping() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": ""}, {"type": "text", "text": "b"}]
    assert Message.from_mapping({"role": "user", "content": parts}) == Message("user", "a\n\nb")
    assert Message.from_mapping({"role": "assistant", "content": "", "tool_calls": None}) == Message("assistant", "")
    assert Message.from_mapping({"role": "assistant", "tool_calls": [CALL]}).tool_calls == (
        ToolCall("now", "{}", "call_1"),
    )
    told = Message.from_mapping({"role": "tool", "tool_call_id": "call_1", "name": "now", "content": parts})
    assert told == Message("tool", "a\n\nb", (), "call_1", "now")


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"role": "tool", "content": "x"}, "must follow the message that called it"),
        ({"role": "function", "content": "x"}, "'function' is the old name of 'tool'"),
        ({"role": "bot", "content": "x"}, "role 'bot' is not known: use system, user, assistant, tool"),
        ({"role": "user"}, "a message has no 'content'"),
        ({"role": "user", "content": None}, "content is null"),
        ({"role": "user", "content": 7}, "content is a int, not text"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "a content part is 'image_url'"),
        ({"role": "user", "content": "x", "tool_calls": [CALL]}, "tool_calls are the assistant's, not user's"),
        ({"role": "user", "content": "x", "tool_call_id": "a"}, "tool_call_id belongs to the result of a tool"),
        ({"role": "user", "content": "x", "name": "Bob"}, "no template has a place for the name of a speaker"),
        ({"role": "assistant", "content": "x", "function_call": {"name": "f"}}, "the old form of tool calls"),
        ({"role": "assistant", "content": "x", "tool_calls": [1]}, r"tool_calls\[0\]: a call is"),
        ({"role": "assistant", "content": "x", "tool_calls": "f"}, "tool_calls must be a list"),
        ({"role": "assistant", "content": None}, "content is null"),
        ({"role": "assistant", "tool_calls": [CALL, CALL]}, "two calls have the same id"),
        ({"role": "assistant", "tool_calls": [{**CALL, "id": ""}]}, r"tool_calls\[0\]: id must be"),
        ({"role": "user", "content": "x", "prefix": True}, "ask for continue_final instead"),
        ("hello", "a message is a str"),
    ],
)
def test_refused_messages(template: ChatTemplate, mapping: Any, message: str) -> None:
    with pytest.raises(TemplateError, match=rf"messages\[1\]: .*{message}"):
        template.encode([U, mapping])


@pytest.mark.parametrize(
    ("conversation", "continues", "message"),
    [
        ([], False, "the conversation is empty"),
        ([A, U], False, r"messages\[0\]: the assistant cannot speak first"),
        ([U, A], False, r"messages\[1\]: the conversation ends with the assistant"),
        ([U], True, r"messages\[0\]: only an assistant message can be continued"),
        ([U, {**A, "content": ""}], True, r"messages\[1\]: the assistant message to continue is empty"),
        ([U, A, S, U], False, r"messages\[2\]: system cannot follow assistant; allowed are assistant, user, tool"),
        ([result("a"), U], False, r"messages\[0\]: the result of a tool cannot be first"),
        ([U, C], False, r"messages\[1\]: a message of the role 'tool' must follow for each of its calls.*'call_1'"),
        ([U, C, U], False, r"messages\[1\]: a message of the role 'tool' must follow"),
        ([U, C, result("call_2")], False, r"messages\[2\]: tool_call_id 'call_2' is none of the calls.*: 'call_1'"),
        ([U, C, result(None)], False, r"messages\[2\]: tool_call_id is missing"),
        ([U, C, result("call_1"), result("call_1")], False, r"messages\[3\]: the result of a tool must follow"),
        ([U, C], True, r"messages\[1\]: a message with tool calls is whole"),
    ],
)
def test_refused_conversations(template: ChatTemplate, conversation: Any, continues: bool, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        template.encode(conversation, continue_final=continues)


def test_an_empty_answer_is_only_its_end(template: ChatTemplate) -> None:
    assert template.encode([U, {**A, "content": ""}, U])[-4:] == [2, 3, *mistral("v3").encode("x"), 4]
