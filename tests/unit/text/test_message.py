"""Messages, and the conversations that are refused: the error names the message."""

from typing import Any

import pytest

from circius.base.errors import TemplateError
from circius.text import ChatTemplate, Message, load_chat_template
from tests.vocabularies import FILES, mistral

U, A, S = ({"role": role, "content": "x"} for role in ("user", "assistant", "system"))


@pytest.fixture(scope="module")
def template() -> ChatTemplate:
    return load_chat_template(FILES["v3"], mistral("v3"))


def test_from_mapping() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": ""}, {"type": "text", "text": "b"}]
    assert Message.from_mapping({"role": "user", "content": parts}) == Message("user", "a\n\nb")
    assert Message.from_mapping({"role": "assistant", "content": "", "tool_calls": None}) == Message("assistant", "")


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"role": "tool", "content": "x"}, "tools are not supported"),
        ({"role": "bot", "content": "x"}, "role 'bot' is not known: use system, user, assistant"),
        ({"role": "user"}, "a message has no 'content'"),
        ({"role": "user", "content": None}, "content is null"),
        ({"role": "user", "content": 7}, "content is a int, not text"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "a content part is 'image_url'"),
        ({"role": "user", "content": "x", "tool_calls": [1]}, "tools are not supported"),
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
        ([U, A, S, U], False, r"messages\[2\]: system cannot follow assistant; allowed are assistant, user"),
    ],
)
def test_refused_conversations(template: ChatTemplate, conversation: Any, continues: bool, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        template.encode(conversation, continue_final=continues)


def test_an_empty_answer_is_only_its_end(template: ChatTemplate) -> None:
    assert template.encode([U, {**A, "content": ""}, U])[-4:] == [2, 3, *mistral("v3").encode("x"), 4]
