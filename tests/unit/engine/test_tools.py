"""Answers that call functions: whatever a random model would say, the calls fit their schemas."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circius.base.errors import CirciusError, ParamsError, TemplateError
from circius.engine.llm import LLM
from circius.engine.outputs import CompletionOutput
from circius.engine.params import SamplingParams
from circius.engine.structured import StructuredOutputs
from circius.text import load_chat_template
from circius.text.tools import Tool
from tests.tool_talk import ADD, CLOCK, TOOLS, WEATHER
from tests.unit.engine.tiny import byte_llm, mistral_llm, tiny_model
from tests.vocabularies import mistral

pytest.importorskip("llguidance", reason="calls are held to their form by llguidance")

ASKED = [{"role": "user", "content": "What is the weather?"}]
CALLS = 5
"""The control token [TOOL_CALLS]."""
BEGINS = {CALLS: 100.0}
"""A bias by which a random model calls something at once."""


@pytest.fixture(scope="module")
def llm() -> LLM:
    return mistral_llm(speculate=4)


def ask(llm: LLM, *, tools: Sequence[Tool] = TOOLS, choice: Any = None, **given: Any) -> CompletionOutput:
    parallel = given.pop("parallel", True)
    params = SamplingParams(**{"seed": 1, "max_tokens": 300, **given})
    [output] = llm.chat(ASKED, params, tools=tools, tool_choice=choice, parallel_tool_calls=parallel)
    return output.outputs[0]


def check_calls(answer: CompletionOutput, tools: Sequence[Tool] = TOOLS) -> None:
    """Every call fits its function's schema."""
    assert answer.finish_reason == "tool_calls"
    assert answer.tool_calls
    by_name = {tool.name: tool for tool in tools}
    for call in answer.tool_calls:
        jsonschema.validate(json.loads(call.arguments), dict(by_name[call.name].schema))
        assert call.id is not None
        assert len(call.id) == 9
        assert call.id.isalnum()
    assert len({call.id for call in answer.tool_calls}) == len(answer.tool_calls)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_required_calls_fit_their_schemas(llm: LLM, seed: int) -> None:
    answer = ask(llm, choice="required", seed=seed)
    check_calls(answer)
    assert answer.text == ""
    assert answer.token_ids[0] == CALLS


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_every_template_can_be_made_to_call(version: str) -> None:
    own = mistral_llm(version)
    for seed in range(3):
        answer = ask(own, choice="required", seed=seed, parallel=False)
        check_calls(answer)
        assert (answer.text, len(answer.tool_calls)) == ("", 1)


def test_a_byte_tokenizer_with_a_template_that_knows_no_tools(tmp_path: Path) -> None:
    own = byte_llm(tmp_path, window=40, context=3000)
    answer = ask(own, tools=[ADD, CLOCK], choice="required", parallel=False)
    check_calls(answer, [ADD, CLOCK])


def test_a_named_function(llm: LLM) -> None:
    for seed in range(4):
        choice = {"type": "function", "function": {"name": "add"}}
        assert {call.name for call in ask(llm, choice=choice, seed=seed).tool_calls} == {"add"}


def test_one_call_or_several(llm: LLM) -> None:
    several = [len(ask(llm, choice="required", seed=seed).tool_calls) for seed in range(5)]
    alone = [len(ask(llm, choice="required", seed=seed, parallel=False).tool_calls) for seed in range(5)]
    assert max(several) > 1
    assert set(alone) == {1}


def test_v2_has_room_for_one_call() -> None:
    own = mistral_llm("v2")
    assert {len(ask(own, choice="required", seed=seed).tool_calls) for seed in range(4)} == {1}


def test_the_model_chooses_and_is_held_from_then_on(llm: LLM) -> None:
    for seed in range(3):
        check_calls(ask(llm, seed=seed, logit_bias=BEGINS))
    free = ask(llm, max_tokens=30, temperature=0)
    assert (free.tool_calls, free.finish_reason) == ([], "length")
    [plain] = llm.generate(
        {"prompt_token_ids": list(llm.asker.chat(ASKED, SamplingParams(), tools=TOOLS).prompt_ids)},
        SamplingParams.greedy(max_tokens=30),
    )
    assert free.token_ids == plain.outputs[0].token_ids


def test_words_before_a_call_are_its_text(llm: LLM) -> None:
    """The model talks, and begins a call where its own words would have ended."""
    words = llm.chat(ASKED, SamplingParams.greedy(max_tokens=5), tools=TOOLS)[0].outputs[0]
    continued = [*ASKED, {"role": "assistant", "content": words.text}]
    params = SamplingParams(seed=1, max_tokens=200, logit_bias=BEGINS)
    answer = llm.chat(continued, params, tools=TOOLS, continue_final=True)[0].outputs[0]
    check_calls(answer)


def test_tools_that_must_not_be_called(llm: LLM) -> None:
    answer = ask(llm, choice="none", logit_bias=BEGINS, max_tokens=20)
    assert CALLS not in answer.token_ids
    assert (answer.tool_calls, answer.finish_reason) == ([], "length")
    asked = llm.asker.chat(ASKED, SamplingParams(), tools=TOOLS, tool_choice="none")
    assert asked.prompt_ids == llm.asker.chat(ASKED, SamplingParams()).prompt_ids


def test_several_answers_beside_others_and_with_drafts(llm: LLM) -> None:
    params = [
        SamplingParams(seed=3, n=2, max_tokens=150, logit_bias=BEGINS),
        SamplingParams(seed=4, n=2, max_tokens=10),
    ]
    together = llm.chat([ASKED, ASKED], params, tools=TOOLS)
    plain = mistral_llm()
    alone = [plain.chat(ASKED, own, tools=TOOLS)[0] for own in params]

    def said(answer: CompletionOutput) -> tuple[Any, ...]:
        calls = [(call.name, call.arguments) for call in answer.tool_calls]
        return answer.index, answer.text, calls, answer.finish_reason, answer.token_ids

    assert [[said(a) for a in output.outputs] for output in together] == [
        [said(a) for a in output.outputs] for output in alone
    ]


def test_texts_as_they_come_join_to_the_text(llm: LLM) -> None:
    told: list[str] = []

    def hear(prompt: int, index: int, text: str, ids: Sequence[int]) -> None:
        told.append(text)

    params = SamplingParams(seed=1, max_tokens=200, logit_bias=BEGINS)
    [output] = llm.chat(ASKED, params, tools=TOOLS, on_token=hear)
    assert "".join(told) == output.outputs[0].text == ""


def test_the_mark_is_never_text(llm: LLM) -> None:
    answer = ask(llm, choice="required", skip_special_tokens=False)
    check_calls(answer)
    assert answer.text == ""


def test_log_probabilities_of_every_token(llm: LLM) -> None:
    answer = ask(llm, choice="required", logprobs=2)
    assert answer.logprobs is not None
    assert len(answer.logprobs) == len(answer.token_ids)
    assert all(token in entry for token, entry in zip(answer.token_ids, answer.logprobs, strict=True))


def test_an_answer_that_is_cut_off(llm: LLM) -> None:
    whole = ask(llm, choice="required", parallel=False)
    text = mistral("v3").decode(whole.token_ids)
    for max_tokens in range(1, len(whole.token_ids), 2):
        answer = ask(llm, choice="required", parallel=False, max_tokens=max_tokens)
        assert answer.finish_reason == "length"
        if answer.tool_calls:
            assert whole.tool_calls[0].arguments.startswith(answer.tool_calls[0].arguments)
        else:
            assert text.startswith(answer.text)


def test_a_stop_text_inside_the_arguments(llm: LLM) -> None:
    whole = ask(llm, tools=[WEATHER], choice="required", parallel=False)
    assert '"city"' in whole.tool_calls[0].arguments
    answer = ask(llm, tools=[WEATHER], choice="required", parallel=False, stop=['ity"'])
    assert (answer.finish_reason, answer.stop_reason) == ("stop", 'ity"')
    assert answer.tool_calls[0].arguments == '{"c'


def test_words_in_a_form_or_a_call(llm: LLM) -> None:
    form = StructuredOutputs(json={"enum": ["cold", "warm"]})
    said = [ask(llm, seed=seed, structured_outputs=form) for seed in range(10)]
    called = [answer for answer in said if answer.tool_calls]
    words = [answer for answer in said if not answer.tool_calls]
    assert called
    assert words
    for answer in called:
        check_calls(answer)
    assert {json.loads(answer.text) for answer in words} <= {"cold", "warm"}
    assert {answer.finish_reason for answer in words} == {"stop"}
    anything = ask(llm, seed=3, structured_outputs=StructuredOutputs(json=True), max_tokens=20, logit_bias=BEGINS)
    assert anything.token_ids[0] == CALLS


UNHEARD = {"type": "object", "properties": {"a": {"not": {"type": "string"}}}}
STRANGE = {"type": "object", "properties": {"a": {"type": "strange"}}}


@pytest.mark.parametrize("parameters", [UNHEARD, STRANGE])
def test_a_schema_that_cannot_be_enforced(llm: LLM, parameters: dict[str, Any]) -> None:
    lax = Tool(name="f", parameters=parameters)
    answer = ask(llm, tools=[lax], choice="required", max_tokens=60)
    assert answer.tool_calls[0].arguments.startswith("{")
    with pytest.raises(ParamsError, match=r"tools: the parameters of f.*without strict"):
        ask(llm, tools=[Tool(name="f", parameters=parameters, strict=True)])


def test_names_and_texts_of_a_schema_cannot_leave_the_grammar(llm: LLM) -> None:
    tool = Tool(
        name="f-_9",
        parameters={
            "properties": {'a"\n\\ call: {': {"enum": ['\n"start: x', "%json {", "é\u2028"]}},
            "required": ['a"\n\\ call: {'],
            "additionalProperties": False,
        },
    )
    answer = ask(llm, tools=[tool], choice="required", parallel=False)
    check_calls(answer, [tool])


@pytest.mark.parametrize(
    ("given_options", "error", "said"),
    [
        ({"choice": "maybe"}, ParamsError, "tool_choice must be 'auto', 'none', 'required'"),
        ({"choice": {"type": "function"}}, ParamsError, "tool_choice must be"),
        ({"choice": {"type": "function", "function": {"name": "g"}}}, ParamsError, "the tools are get_weather, now"),
        ({"tools": [], "choice": "required"}, ParamsError, "tool_choice 'required' needs tools"),
        ({"tools": "f"}, TemplateError, "tools must be a list"),
        ({"tools": [{"type": "f"}]}, TemplateError, r"tools\[0\]: type must be 'function'"),
        ({"parallel": "no"}, ParamsError, "parallel_tool_calls must be True or False"),
        ({"min_tokens": 3}, ParamsError, "leave out ignore_eos and min_tokens"),
        ({"ignore_eos": True}, ParamsError, "leave out ignore_eos and min_tokens"),
        ({"structured_outputs": StructuredOutputs(regex="a")}, ParamsError, "go together with JSON only"),
        (
            {"structured_outputs": StructuredOutputs(json_object=True), "choice": "required"},
            ParamsError,
            "tool_choice wants a call",
        ),
    ],
)
def test_what_is_refused_before_anything_is_computed(
    llm: LLM, given_options: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        ask(llm, **given_options)


def test_no_tools_are_no_tools(llm: LLM) -> None:
    for choice in (None, "auto", "none"):
        assert ask(llm, tools=[], choice=choice, max_tokens=3, temperature=0).tool_calls == []


def test_without_llguidance_calls_are_read_but_not_enforced(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    own = mistral_llm()

    def missing() -> None:
        raise CirciusError("structured outputs need llguidance")

    monkeypatch.setattr(own.asker, "_forms", missing)
    wanted = '[{"name": "now", "arguments": {}}]'
    ids = [CALLS, *mistral("v3").encode(wanted), 2]
    answer = forced(own, ids)
    assert [(call.name, call.arguments) for call in answer.tool_calls] == [("now", "{}")]
    assert (answer.text, answer.finish_reason) == ("", "tool_calls")
    broken = forced(own, [CALLS, *mistral("v3").encode('[{"name": "now", "arguments": {'), 2])
    assert (broken.text, broken.tool_calls) == ('[{"name": "now", "arguments": {', [])
    assert broken.finish_reason == "stop"
    with pytest.raises(CirciusError, match="need llguidance"):
        ask(own, tools=[CLOCK], choice="required")
    with pytest.raises(CirciusError, match="need llguidance"):
        ask(own, tools=[ADD])


def forced(llm: LLM, ids: Sequence[int]) -> CompletionOutput:
    """The answer that has these tokens, made by the engine's own `Answer`."""
    from circius.engine.answers import new_answer

    request = llm.asker.chat(ASKED, SamplingParams(max_tokens=100), tools=[CLOCK])
    answer = new_answer(request, 0, llm.tokenizer)
    for token in ids:
        answer.append(token)
    return answer.output()


def test_a_stop_text_that_was_begun_before_the_calls_is_text(llm: LLM) -> None:
    from circius.engine.answers import new_answer

    request = llm.asker.chat(ASKED, SamplingParams(max_tokens=100, stop=["END"]), tools=[CLOCK])
    answer = new_answer(request, 0, llm.tokenizer)
    text = ""
    for token in [
        *mistral("v3").encode("see E"),
        CALLS,
        *mistral("v3").encode('[{"name": "now", "arguments": {}}]'),
        2,
    ]:
        text += answer.append(token)
    assert text == answer.output().text == "see E"
    assert [call.name for call in answer.output().tool_calls] == ["now"]


def test_a_model_without_a_tokenizer_has_no_tools() -> None:
    with pytest.raises(TemplateError, match="no chat template"):
        LLM.of(tiny_model()).chat(ASKED, tools=TOOLS)


def test_a_plain_object_template_and_a_form_contradict_each_other(tmp_path: Path) -> None:
    from circius.text.jinja_template import JinjaTemplate
    from tests.unit.text.test_jinja_tools import ONE_PLAIN

    tokenizer = mistral("v3")
    own = LLM.of(
        tiny_model(vocab_size=tokenizer.vocab_size),
        tokenizer=tokenizer,
        chat_template=JinjaTemplate(ONE_PLAIN, tokenizer, injection="escape"),
        context=3000,
    )
    answer = ask(own, choice="required")
    check_calls(answer)
    assert len(answer.tool_calls) == 1
    with pytest.raises(ParamsError, match="cannot be told from an answer in the form"):
        ask(own, structured_outputs=StructuredOutputs(json_object=True))


def test_marks_that_are_control_tokens(tmp_path: Path) -> None:
    """A template whose calls stand between control tokens, here two of Mistral's that are free."""
    from circius.text.jinja_template import JinjaTemplate
    from tests.unit.text.test_jinja_tools import BLOCKS

    tokenizer = mistral("v3")
    source = BLOCKS.replace("</call>", "[SUFFIX]").replace("<call>", "[PREFIX]")
    template = JinjaTemplate(source, tokenizer, injection="escape")
    assert isinstance(template.call_form.trigger, int)
    own = LLM.of(tiny_model(vocab_size=tokenizer.vocab_size), tokenizer=tokenizer, chat_template=template, context=3000)
    for seed in range(3):
        answer = ask(own, choice="required", seed=seed)
        check_calls(answer)
        assert answer.text == ""
    begins = {template.call_form.trigger: 100.0}
    check_calls(ask(own, logit_bias=begins, parallel=False))
    assert load_chat_template(tokenizer.source, tokenizer, name="v3").call_form.trigger == CALLS
