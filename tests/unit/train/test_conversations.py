"""Conversations and preference pairs, out of every form they come in."""

import json
from pathlib import Path
from typing import Any

import pytest

from circius.base.errors import InvalidInputError
from circius.train.conversations import Conversation, read_conversations
from circius.train.forms import detect
from circius.train.preferences import Preference, read_preferences
from circius.train.records import Problem

HI = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
PLAIN = [("user", "Hi"), ("assistant", "Hello")]


def written(folder: Path, *rows: Any) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return file


def read(folder: Path, *rows: Any, form: str = "auto") -> tuple[list[Conversation], list[Problem]]:
    problems: list[Problem] = []
    return list(read_conversations(written(folder, *rows), form, problems.append)), problems


def turns(conversation: Conversation | Any) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in getattr(conversation, "messages", conversation)]


@pytest.mark.parametrize(
    ("form", "row", "expected"),
    [
        ("messages", {"messages": HI, "id": 7}, PLAIN),
        ("messages", {"interactions": HI}, PLAIN),
        ("messages", {"conversations": HI}, PLAIN),
        ("messages", {"messages": [{"role": "user", "text": "Hi"}, HI[1]]}, PLAIN),
        ("messages", {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, HI[1]]}, PLAIN),
        ("messages", {"system": "S", "messages": HI}, [("system", "S"), *PLAIN]),
        ("sharegpt", {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}, PLAIN),
        (
            "sharegpt",
            {"messages": [{"from": "system", "value": "S"}, {"from": "user", "value": "Hi"},
                          {"from": "chatgpt", "value": "Hello", "weight": 1}]},
            [("system", "S"), *PLAIN],
        ),
        ("alpaca", {"instruction": "Hi", "input": "", "output": "Hello"}, PLAIN),
        ("alpaca", {"instruction": "Add", "input": "1 1", "output": "2"}, [("user", "Add\n\n1 1"), ("assistant", "2")]),
        ("alpaca", {"instruction": "Hi", "context": None, "response": "Hello"}, PLAIN),
        (
            "alpaca",
            {"instruction": "b", "output": "B", "history": [["a", "A"]], "system": "S"},
            [("system", "S"), ("user", "a"), ("assistant", "A"), ("user", "b"), ("assistant", "B")],
        ),
        ("prompt-response", {"prompt": "Hi", "response": "Hello"}, PLAIN),
        ("prompt-response", {"prompt": HI[:1], "completion": HI[1:]}, PLAIN),
        ("self-instruct", {"instruction": "Hi", "instances": [{"input": "", "output": "Hello"}]}, PLAIN),
    ],
)  # fmt: skip
def test_forms(tmp_path: Path, form: str, row: Any, expected: list[tuple[str, str]]) -> None:
    assert detect(row) == form
    for named in ("auto", form):
        [conversation], problems = read(tmp_path, row, form=named)
        assert turns(conversation) == expected
        assert conversation.learnt == tuple(role == "assistant" for role, _ in expected)
        assert (conversation.place.line, problems) == (1, [])


def test_a_record_may_hold_several_conversations(tmp_path: Path) -> None:
    instances = [{"input": "1", "output": "one"}, {"input": "2", "output": "two"}]
    found, _ = read(tmp_path, {"instruction": "Spell", "instances": instances})
    assert [turns(one) for one in found] == [
        [("user", "Spell\n\n1"), ("assistant", "one")],
        [("user", "Spell\n\n2"), ("assistant", "two")],
    ]


def test_weights(tmp_path: Path) -> None:
    weighed = [HI[0], {**HI[1], "weight": 0}, HI[0], {**HI[1], "weight": 1}, HI[0], {**HI[1], "weight": None}]
    [conversation], _ = read(tmp_path, {"messages": weighed})
    assert conversation.learnt == (False, False, False, True, False, True)


def test_tools(tmp_path: Path) -> None:
    tool = {"name": "add", "description": "adds"}
    wrapped = {"type": "function", "function": tool}
    given: list[tuple[str, Any]] = [("tools", [wrapped]), ("available_tools", [wrapped]), ("functions", [tool])]
    rows = [{"messages": HI, key: value} for key, value in [*given, ("tools", json.dumps([wrapped]))]]
    found, problems = read(tmp_path, *rows, {"messages": HI, "tools": "add"}, {"messages": HI, "tools": []})
    assert [[one.name for one in conversation.tools] for conversation in found] == [["add"]] * 4 + [[]]
    assert [problem.message for problem in problems] == [
        "'tools' is a text that is not JSON; a list of tools is expected"
    ]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"messages": "Hi"}, "has a list under one of messages, interactions, conversations; 'messages' is a text"),
        ({"text": "Hi"}, "has a list under one of messages, interactions, conversations; it has 'text'"),
        ({"messages": []}, "the conversation is empty"),
        ({"messages": ["Hi"]}, "messages[0]: a message is a str, not an object"),
        ({"messages": HI[:1]}, "messages[0]: the conversation ends with a user message"),
        ({"messages": HI[1:]}, "messages[0]: the assistant cannot speak first"),
        ({"messages": [{"role": "bot", "content": "Hi"}]}, "messages[0]: role 'bot' is not known"),
        ({"messages": [{"role": "user"}, HI[1]]}, "messages[0]: a message has no 'content'"),
        ({"messages": [{**HI[0], "mood": "good"}, HI[1]]}, "messages[0]: a message has the key 'mood'"),
        ({"messages": [HI[0], {**HI[1], "content": " \n"}]}, "messages[1]: the answer is empty"),
        ({"messages": [HI[0], {**HI[1], "weight": 2}]}, "messages[1]: weight is 2; 0 (not learnt) and 1 (learnt)"),
        ({"messages": [HI[0], {**HI[1], "weight": True}]}, "messages[1]: weight is True; 0"),
        ({"messages": [HI[0], {**HI[1], "weight": 0}]}, "every answer has weight 0"),
        ({"messages": [{**HI[0], "weight": 1}, HI[1]]}, "messages[0]: only an assistant message has a weight"),
        ({"messages": [{"role": "system", "content": "S"}, *HI], "system": "T"}, "'system' and a system message"),
        ({"messages": HI, "system_prompt": ["T"]}, "'system_prompt' is a list, where text is expected"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, row: Any, problem: str) -> None:
    found, problems = read(tmp_path, {"messages": HI}, row, {"messages": HI})
    assert len(found) == 2  # the others are still read
    [one] = problems
    assert one.place.line == 2
    assert problem in one.message


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"conversations": [{"from": "human"}]}, "messages[0]: a turn of the form sharegpt has 'from' and 'value'"),
        ({"conversations": [{"from": "narrator", "value": "x"}]}, "messages[0]: from is 'narrator'; human, user, gpt"),
        ({"conversations": [{"from": ["gpt"], "value": "x"}]}, "messages[0]: from is ['gpt']; human, user, gpt"),
        ({"instruction": "x", "output": "y", "history": 5}, "'history' is a number, where a list of pairs is expected"),
        ({"instruction": 3, "output": "x"}, "'instruction' is a number, where text is expected"),
        ({"instruction": "x", "output": "y", "history": ["ab"]}, "history[0] is not a pair"),
        ({"prompt": 3, "response": "x"}, "'prompt' is a number, where text or a list of messages is expected"),
        ({"instruction": "x", "instances": {}}, "'instances', a list of objects"),
        ({"chosen": "x", "rejected": "y"}, "a preference pair ('chosen' and 'rejected'), which has no one answer"),
        ({"text": "x"}, "an object with 'text', which is none of the forms messages, sharegpt, alpaca"),
    ],
)
def test_what_is_refused_of_other_forms(tmp_path: Path, row: Any, problem: str) -> None:
    found, [one] = read(tmp_path, row)
    assert not found
    assert problem in one.message


def test_the_first_record_decides(tmp_path: Path) -> None:
    found, [problem] = read(tmp_path, {"messages": HI}, {"instruction": "a", "output": "b"})
    assert len(found) == 1
    assert "a record of the form messages" in problem.message


def test_unknown_forms(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="form 'xml' is not known: use auto, messages, sharegpt"):
        read(tmp_path, form="xml")


def pairs(folder: Path, *rows: Any) -> tuple[list[Preference], list[Problem]]:
    problems: list[Problem] = []
    return list(read_preferences(written(folder, *rows), problems.append)), problems


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "chosen": "Hello", "rejected": "No"},
        {"instruction": "Hi", "input": "", "output": "Hello", "chosen": "Hello", "rejected": "No"},
        {"prompt": HI[:1], "chosen": HI[1:], "rejected": [{"role": "assistant", "content": "No"}]},
        {"chosen": HI, "rejected": [HI[0], {"role": "assistant", "content": "No"}]},
        {"prompt": "Hi", "chosen": HI, "rejected": [HI[0], {"role": "assistant", "content": "No"}]},
    ],
)
def test_preferences(tmp_path: Path, row: Any) -> None:
    [pair], problems = pairs(tmp_path, row)
    assert not problems
    assert turns(pair.prompt) == PLAIN[:1]
    assert (turns(pair.chosen), turns(pair.rejected)) == (PLAIN[1:], [("assistant", "No")])


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": "Hi", "chosen": "Hello"}, "this record has 'prompt', 'chosen'"),
        ({"prompt": "Hi", "chosen": "Hello", "rejected": "Hello"}, "the chosen and the rejected answer are the same"),
        ({"prompt": "Hi", "chosen": "Hello", "rejected": ""}, "'rejected' does not end with an answer"),
        ({"prompt": "Hi", "chosen": HI[:1], "rejected": "No"}, "'chosen' does not end with an answer"),
        ({"chosen": "Hello", "rejected": "No"}, "the prompt must end with what is answered"),
        ({"prompt": "Hi", "chosen": "Hello", "rejected": 3}, "'rejected' is a number"),
    ],
)
def test_refused_preferences(tmp_path: Path, row: Any, problem: str) -> None:
    found, [one] = pairs(tmp_path, row)
    assert not found
    assert problem in one.message
