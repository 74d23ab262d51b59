"""Reading calls out of answers: whatever way the text is cut, and wherever it ends."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circius.text.tool_form import DESCRIBED, CallForm
from circius.text.tool_reader import CallPiece, CallReader, Said
from circius.text.tools import ToolCall
from tests.tool_talk import json_values

V3 = CallForm(begin="[TOOL_CALLS][", between=", ", end="]", specials={"[TOOL_CALLS]": 5})
PLAIN = CallForm(begin="", between="", end="", arguments_key="parameters", most_calls=1)
MARKED = CallForm(
    begin="<tool_call>\n", between="\n</tool_call>\n<tool_call>\n", end="\n</tool_call>",
    specials={"<tool_call>": 7, "</tool_call>": 8},
)  # fmt: skip
FORMS = {"v3": V3, "described": DESCRIBED, "plain": PLAIN, "marked": MARKED}
NAMES = ("add", "add_all", 'now"'[:3])

objects = st.dictionaries(st.text(max_size=5), json_values, max_size=3).map(json.dumps)
contents = st.text("ab <>[]{}\"'\n,:", max_size=12)


def feed(reader: CallReader, form: CallForm, text: str, cuts: Sequence[int]) -> Said:
    """The whole text in pieces, the form's control tokens by their ids."""
    said: list[Said] = []
    for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        piece = text[begin:end]
        while piece:
            at, literal = min(((piece.find(mark), mark) for mark in form.specials if mark in piece), default=(-1, ""))
            if at < 0:
                said.append(reader.push(piece))
                break
            said += [reader.push(piece[:at]), reader.mark(form.specials[literal])]
            piece = piece[at + len(literal) :]
    said.append(reader.end())
    return Said("".join(each.text for each in said), tuple(piece for each in said for piece in each.calls))


def joined(pieces: Sequence[CallPiece]) -> list[ToolCall]:
    """The calls that the pieces of a stream make."""
    calls: list[ToolCall] = []
    for piece in pieces:
        if piece.id is not None:
            assert piece.index == len(calls)
            calls.append(ToolCall(str(piece.name), piece.arguments, piece.id))
        else:
            calls[piece.index] = ToolCall(calls[-1].name, calls[-1].arguments + piece.arguments, calls[-1].id)
    return calls


def cuts_of(data: st.DataObject, text: str, form: CallForm) -> list[int]:
    """Where to cut, though never inside a control token, which comes whole."""
    inside = {
        at + n
        for mark in form.specials
        for at in range(len(text))
        if text.startswith(mark, at)
        for n in range(1, len(mark))
    }
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=8))
    return sorted(set(cuts) - inside)


@pytest.mark.parametrize("is_held", [True, False])
@pytest.mark.parametrize("name", FORMS)
@given(data=st.data())
def test_calls_are_read_however_they_are_cut(name: str, is_held: bool, data: st.DataObject) -> None:
    form = FORMS[name]
    n_most = form.most_calls or 3
    wanted = [(data.draw(st.sampled_from(NAMES)), data.draw(objects)) for _ in range(data.draw(st.integers(1, n_most)))]
    before = "" if form.is_only_first else data.draw(contents).strip()
    text = before + form.write([ToolCall(called, arguments, "a") for called, arguments in wanted])
    reader = CallReader(form, NAMES, is_held=is_held)
    said = feed(reader, form, text, cuts_of(data, text, form))
    assert said.text == before
    assert [(call.name, json.loads(call.arguments)) for call in reader.calls] == [
        (called, json.loads(arguments)) for called, arguments in wanted
    ]
    assert joined(said.calls) == reader.calls
    assert reader.is_whole
    assert len({call.id for call in reader.calls}) == len(wanted)


@pytest.mark.parametrize("is_held", [True, False])
@pytest.mark.parametrize("name", FORMS)
@given(data=st.data())
def test_whatever_is_cut_off_is_not_lost(name: str, is_held: bool, data: st.DataObject) -> None:
    form = FORMS[name]
    call = ToolCall("add", data.draw(objects), "a")
    whole = form.write([call] if form.most_calls else [call, call])
    text = whole[: data.draw(st.integers(0, len(whole)))]
    reader = CallReader(form, NAMES, is_held=is_held)
    said = feed(reader, form, text, cuts_of(data, text, form))
    assert joined(said.calls) == reader.calls
    kept = said.text + "".join(own.arguments for own in reader.calls)
    assert all(whole_arguments.startswith(own.arguments) for own in reader.calls for whole_arguments in [form_of(call)])
    if not reader.calls:
        trigger = form.trigger if isinstance(form.trigger, int) else None
        assert said.text == text.removeprefix("" if trigger is None else form.literal(trigger))
    # What is neither text nor an argument is the form's own, or names a call that is told.
    assert len(kept) <= len(text)
    if reader.is_whole and is_held:
        assert text.rstrip() in (whole.rstrip(), form.write([call]).rstrip())


def form_of(call: ToolCall) -> str:
    return json.dumps(call.value, ensure_ascii=False).replace("</", "<\\/")


@given(data=st.data(), text=contents)
def test_text_without_calls_is_text(data: st.DataObject, text: str) -> None:
    for form in FORMS.values():
        reader = CallReader(form, NAMES, is_held=True)
        said = feed(reader, form, text, cuts_of(data, text, form))
        assert (said.text, reader.calls, reader.is_whole) == (text, [], False)


@pytest.mark.parametrize("is_held", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        "I would use <tool_call> for it.",
        '<tool_call>\n{"name": "other", "arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": "add", "arguments": [1]}\n</tool_call>',
        '<tool_call>\n{"name": "add", "arguments": {"a": }}\n</tool_call>'.replace('{"a": }', "1"),
        '<tool_call>\n{"name": "add", "arguments": {}, "why": "so"}\n</tool_call>'.replace("arguments", "args"),
        "<tool_call>",
        "<tool",
        "a\n\n",
    ],
)
def test_what_only_begins_like_a_call_is_text(text: str, is_held: bool) -> None:
    reader = CallReader(DESCRIBED, NAMES, is_held=is_held)
    said = feed(reader, DESCRIBED, text, [])
    assert (said.text, reader.calls) == (text, [])


def test_without_a_grammar_other_ways_of_writing_are_read_too() -> None:
    for text in (
        '<tool_call>{"arguments": {"a": 1}, "name": "add"}</tool_call>',
        '<tool_call>[{"id": "x", "type": "function", "name": "add", "arguments": "{\\"a\\": 1}"}]</tool_call>\n',
        '<tool_call>\n\n\n{"name":"add","parameters":{"a":1}}',
    ):
        for is_held in (True, False):
            reader = CallReader(DESCRIBED, NAMES, is_held=is_held)
            said = feed(reader, DESCRIBED, "Well. " + text, [])
            assert [(call.name, call.arguments) for call in reader.calls] == [("add", '{"a": 1}')]
            assert said.text == "Well."
            assert reader.is_whole


def test_a_held_call_is_told_as_it_comes() -> None:
    reader = CallReader(V3, NAMES, is_held=True, new_id=lambda: "abcdefgh1")
    assert reader.push("Let me see.\n") == Said("Let me see.")
    assert reader.mark(5) == Said()
    assert reader.push(' [{"name": "ad') == Said()
    assert reader.push('d", "arguments": {"a": "') == Said(
        "", (CallPiece(0, "", "abcdefgh1", "add"), CallPiece(0, '{"a": "'))
    )
    assert reader.push("}") == Said("", (CallPiece(0, "}"),))
    assert reader.push('"}}') == Said("", (CallPiece(0, '"}'),))
    assert not reader.is_whole
    assert reader.push("]") == Said()
    assert reader.end() == Said()
    assert reader.is_whole
    assert reader.calls == [ToolCall("add", '{"a": "}"}', "abcdefgh1")]


def test_the_mark_is_a_token_and_no_text() -> None:
    reader = CallReader(V3, NAMES, is_held=True)
    said = feed(reader, CallForm(begin="", between="", end=""), '[TOOL_CALLS] [{"name": "add", "arguments": {}}]', [])
    assert (said.text, reader.calls) == ('[TOOL_CALLS] [{"name": "add", "arguments": {}}]', [])
