"""Conversations as a source: what is kept, split and left out, and that nothing is lost in silence."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circius.base.errors import InvalidInputError
from circius.text import ChatTemplate, load_chat_template
from circius.train.chat_source import ChatSource
from circius.train.conversations import Conversation, conversation_of
from circius.train.labels import labelled
from circius.train.records import Place
from circius.train.too_long import Counts, LengthRule, as_prompted, examples_of, split_at_turns
from tests.vocabularies import FILES, mistral

PLACE = Place(Path("chat.jsonl"), 1)
Raw = list[dict[str, Any]]


def template(version: str = "v3") -> ChatTemplate:
    return load_chat_template(FILES[version], mistral(version))


def turn(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def exchange(number: int, n_words: int = 1) -> Raw:
    return [turn("user", f"Question {number}"), turn("assistant", " ".join([f"answer{number}"] * n_words))]


def written(folder: Path, *conversations: Raw, name: str = "chat.jsonl") -> Path:
    (folder / name).write_text("\n".join(json.dumps({"messages": one}) for one in conversations))
    return folder / name


def test_examples_are_those_of_the_file_in_order(tmp_path: Path) -> None:
    conversations = [[turn("system", "Be brief."), *exchange(1)], exchange(2), exchange(3) + exchange(4)]
    files = [written(tmp_path, *conversations[:2], name="a.jsonl"), written(tmp_path, conversations[2], name="b.jsonl")]
    source = ChatSource(files, template(), seq_len=100)
    expected = [labelled(template(), conversation_of(one, PLACE)) for one in conversations]
    assert (len(source), source.name) == (3, "a.jsonl+b.jsonl")
    for index, whole in enumerate(expected):
        example = source.example(index)
        assert example.ids.tolist() == whole.ids.tolist()
        assert example.learnt.tolist() == whole.learnt.tolist()
        assert source.n_tokens(index) == len(whole)
    assert source.counts.n_tokens == sum(map(len, expected))
    assert source.counts.n_learnt == sum(one.n_learnt for one in expected)
    assert source.counts.lengths == [len(one) for one in expected]


def test_what_is_given_away_is_a_copy(tmp_path: Path) -> None:
    source = ChatSource(written(tmp_path, exchange(1)), template(), seq_len=100)
    source.example(0).ids[:] = 0
    source.example(0).learnt[:] = False
    assert source.example(0).n_learnt > 0
    assert source.example(0).ids.any()


def test_a_fault_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"chat\.jsonl:2: messages\[0\]: the conversation ends with a user"):
        ChatSource(written(tmp_path, exchange(1), exchange(2)[:1]), template(), seq_len=100)
    mixed = [turn("user", "a"), turn("assistant", "b", weight=0), turn("assistant", "c")]
    with pytest.raises(InvalidInputError, match=r"chat\.jsonl:1: .* become one answer"):
        ChatSource(written(tmp_path, mixed), template(), seq_len=100)
    with pytest.raises(InvalidInputError, match=r"chat\.jsonl: no conversation"):
        ChatSource(written(tmp_path), template(), seq_len=100)


def test_too_many_long_ones_are_an_error(tmp_path: Path) -> None:
    file = written(tmp_path, *[exchange(1)] * 998, exchange(2, 100), exchange(3, 200))
    with pytest.raises(InvalidInputError) as caught:
        ChatSource(file, template(), seq_len=60)
    said = str(caught.value)
    longest = len(labelled(template(), conversation_of(exchange(3, 200), PLACE)))
    assert f"2 of 1000 conversations (0.2%) have more than 60 tokens, the longest {longest}" in said
    assert "choose what happens to them (drop, or split between turns)" in said


def test_a_few_are_left_out_and_counted(tmp_path: Path) -> None:
    source = ChatSource(written(tmp_path, *[exchange(1)] * 999, exchange(2, 100)), template(), seq_len=60)
    assert (len(source), source.counts.n_dropped, source.counts.n_whole) == (999, 1, 1000)


def test_dropping(tmp_path: Path) -> None:
    file = written(tmp_path, exchange(1), exchange(2, 100))
    source = ChatSource(file, template(), seq_len=60, too_long="drop")
    assert (len(source), source.counts.n_dropped, source.counts.n_split) == (1, 1, 0)
    with pytest.raises(InvalidInputError, match="no conversation that is learnt from"):
        ChatSource(file, template(), seq_len=5, too_long="drop")


def test_splitting(tmp_path: Path) -> None:
    long = [turn("system", "Be brief."), *(message for number in range(9) for message in exchange(number, 4))]
    source = ChatSource(written(tmp_path, long), template(), seq_len=60, too_long="split")
    texts = [mistral("v3").decode(source.example(index).ids, skip_special=False) for index in range(len(source))]
    assert len(source) > 2
    assert (source.counts.n_split, source.counts.n_dropped, source.counts.n_lost_answers) == (1, 0, 0)
    assert all(text.startswith("<s>[INST]") and "Be brief." in text and text.endswith("</s>") for text in texts)
    answers = [
        mistral("v3").decode(source.example(index).ids[source.example(index).learnt]) for index in range(len(source))
    ]
    assert "".join(answers).replace(" ", "") == "".join(f"answer{number}" * 4 for number in range(9))


def test_an_exchange_too_long_by_itself_is_counted(tmp_path: Path) -> None:
    file = written(tmp_path, [*exchange(1), *exchange(2, 100), *exchange(3)], exchange(4, 100))
    source = ChatSource(file, template(), seq_len=60, too_long="split")
    assert len(source) == 2
    assert (source.counts.n_split, source.counts.n_lost_answers, source.counts.n_dropped) == (1, 2, 1)


conversations = st.lists(
    st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 9), st.booleans()), min_size=1, max_size=7
)


def built(exchanges: list[tuple[int, int, int, bool]], *, system: bool) -> Conversation:
    raw = [turn("system", "Be kind.")] if system else []
    for number, (n_user, n_answers, n_words, is_learnt) in enumerate(exchanges):
        raw += [turn("user", f"q{number}")] * n_user
        raw += [turn("assistant", f"a{number} " * n_words, weight=int(is_learnt or number == 0))] * n_answers
    return conversation_of(raw, PLACE)


@settings(max_examples=100, deadline=None)
@given(exchanges=conversations, limit=st.integers(1, 60), system=st.booleans())
def test_windows(exchanges: list[tuple[int, int, int, bool]], limit: int, system: bool) -> None:
    """Every answer is learnt once or counted; a window begins with the system prompt and a user, and could not grow."""
    conversation = built(exchanges, system=system)

    def size(window: Conversation) -> int:
        return sum(len(message.content) for message in window.messages)

    windows, n_lost = split_at_turns(conversation, lambda window: size(window) <= limit)
    learnt = [
        message for message, is_learnt in zip(conversation.messages, conversation.learnt, strict=True) if is_learnt
    ]
    kept = [
        message
        for window in windows
        for message, is_learnt in zip(window.messages, window.learnt, strict=True)
        if is_learnt
    ]
    assert len(kept) + n_lost == len(learnt)
    assert [message for message in learnt if message in kept] == kept
    for window in windows:
        assert size(window) <= limit
        roles = [message.role for message in window.messages]
        assert roles[:2] == ["system", "user"] if system else roles[0] == "user"
        assert roles.count("system") == system
        assert roles[-1] == "assistant"


def test_windows_are_as_long_as_they_can_be() -> None:
    conversation = built([(1, 1, 1, True)] * 7, system=False)
    windows, _ = split_at_turns(conversation, lambda window: len(window.messages) <= 6)
    assert [len(window.messages) for window in windows] == [6, 6, 2]


TOOL = {"type": "function", "function": {"name": "add"}}
CALL = {"id": "abcdefghi", "function": {"name": "add", "arguments": {}}}
WITH_TOOLS: Raw = [
    turn("user", "a"), {"role": "assistant", "tool_calls": [CALL]}, turn("tool", "1", tool_call_id="abcdefghi"),
    turn("assistant", "A"), turn("user", "b"), turn("assistant", "B"),
]  # fmt: skip


def tooled(folder: Path) -> Path:
    (folder / "tools.jsonl").write_text(json.dumps({"messages": WITH_TOOLS, "tools": [TOOL]}))
    return folder / "tools.jsonl"


def test_with_tools_each_exchange_is_learnt_as_it_will_be_prompted(tmp_path: Path) -> None:
    """v3 shows tools before the last question: an earlier call is learnt where they stand before it."""
    source = ChatSource(tooled(tmp_path), template(), seq_len=200)
    examples = [source.example(index) for index in range(len(source))]
    texts = [mistral("v3").decode(example.ids, skip_special=False) for example in examples]
    learnt = [mistral("v3").decode(example.ids[example.learnt], skip_special=False) for example in examples]
    assert [text.count("[AVAILABLE_TOOLS]") for text in texts] == [1, 1]
    assert all(text.startswith("<s>[AVAILABLE_TOOLS]") for text in texts[:1])
    assert learnt[0].startswith("[TOOL_CALLS]")
    assert learnt[0].endswith("</s> A</s>")
    assert learnt[1] == "B</s>"
    assert source.counts.n_whole == 1
    prompt = template().encode(WITH_TOOLS[:1], tools=[TOOL])
    assert examples[0].ids[: len(prompt)].tolist() == prompt
    prompt = template().encode(WITH_TOOLS[:5], tools=[TOOL])
    assert examples[1].ids[: len(prompt)].tolist() == prompt


def test_without_tools_a_conversation_is_one_example() -> None:
    conversation = conversation_of(exchange(1) + exchange(2), PLACE)
    assert as_prompted(conversation, template()) == [conversation]
    counts = Counts()
    assert len(examples_of(conversation, template(), LengthRule(None), counts)) == 1
    assert counts.n_examples == counts.n_whole == 1


def test_rules_that_are_none() -> None:
    with pytest.raises(InvalidInputError, match="too_long must be one of error, drop, split, got 'cut'"):
        LengthRule(8, "cut")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="seq_len must be 2 or more, got 1"):
        LengthRule(1)
