"""A conversation keeps its cache: what is computed again, what is not, and what stays after an abort."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from torch import Tensor, nn

from circius.base.config import Window
from circius.base.errors import ContextOverflowError, ParamsError, TemplateError
from circius.engine.llm import LLM
from circius.engine.params import SamplingParams
from circius.engine.session import ChatSession
from circius.text import Message
from tests.unit.engine.tiny import byte_llm, tiny_model

GREEDY = SamplingParams.greedy(max_tokens=10, logit_bias=dict.fromkeys(range(100, 120), 50.0))
"""Letters only, so that an answer is encoded as the tokens that it was made of."""


@pytest.fixture
def llm(tmp_path: Path) -> LLM:
    return byte_llm(tmp_path)


@contextmanager
def _counted(model: nn.Module) -> Iterator[list[int]]:
    """The number of tokens of each forward."""
    seen: list[int] = []
    hook = model.register_forward_hook(lambda _module, args, _output: seen.append(len(args[0])))
    yield seen
    hook.remove()


@pytest.mark.parametrize("window", [None, 7, 30, 400])
def test_each_turn_equals_the_whole_conversation_from_scratch(tmp_path: Path, window: Window) -> None:
    llm = byte_llm(tmp_path, window=window)
    session = ChatSession(llm, [Message("system", "Be brief.")])
    for question in ("Who?", "And then?", "Why so?"):
        asked = [*session.messages, Message("user", question)]
        output = session.ask(question, GREEDY)
        scratch = llm.chat(asked, GREEDY)[0]
        assert output.outputs == scratch.outputs
        assert output.prompt_token_ids == scratch.prompt_token_ids
        assert session.messages == [*asked, Message("assistant", output.outputs[0].text)]


def test_only_the_new_part_is_computed(llm: LLM) -> None:
    session = ChatSession(llm)
    first = session.ask("Hello", GREEDY)
    n_known = len(first.prompt_token_ids) + 9  # the last token of an answer is not forwarded
    assert session.n_cached_tokens == n_known
    with _counted(llm.model) as seen:
        second = session.ask("Again", GREEDY)
    assert second.timings.cached_tokens == n_known
    assert seen[0] == len(second.prompt_token_ids) - n_known
    assert session.n_cache_bytes > 0


def test_a_changed_past_is_taken_back_to_where_it_differs(llm: LLM) -> None:
    session = ChatSession(llm)
    session.ask("One", GREEDY)
    session.ask("Two", GREEDY)
    first = session.messages[:2]
    output = session.ask([*first, Message("user", "Other")], GREEDY)
    assert 0 < output.timings.cached_tokens < session.n_cached_tokens
    assert output.outputs == llm.chat([*first, Message("user", "Other")], GREEDY)[0].outputs


def test_a_past_that_the_ring_has_overwritten_is_filled_in_again(tmp_path: Path) -> None:
    llm = byte_llm(tmp_path, window=8)
    session = ChatSession(llm)
    session.ask("A long question, longer than the window is", GREEDY)
    changed = [Message("user", "A long question, with another end")]
    output = session.ask(changed, GREEDY)
    assert output.timings.cached_tokens == 0
    assert output.outputs == llm.chat(changed, GREEDY)[0].outputs


def test_the_same_question_again_still_computes_its_last_token(llm: LLM) -> None:
    session = ChatSession(llm)
    question = [Message("user", "Twice")]
    first, second = session.ask(question, GREEDY), session.ask(question, GREEDY)
    assert second.timings.cached_tokens == len(first.prompt_token_ids) - 1
    assert second.outputs == first.outputs


def test_the_cache_stays_on_reset_as_far_as_it_fits(llm: LLM) -> None:
    session = ChatSession(llm)
    first = session.ask("Hello", GREEDY)
    session.reset()
    assert session.messages == []
    assert session.ask("Hello", GREEDY).timings.cached_tokens == len(first.prompt_token_ids) - 1


def test_an_aborted_answer_stays_as_far_as_it_went(llm: LLM) -> None:
    session = ChatSession(llm)
    pieces: list[str] = []

    def three(_index: int, _n_index: int, text: str, _ids: object) -> bool:
        pieces.append(text)
        return len(pieces) < 3

    output = session.ask("Hello", GREEDY, on_token=three)
    assert output.outputs[0].finish_reason == "abort"
    assert session.messages[-1] == Message("assistant", "".join(pieces))
    asked = [*session.messages, Message("user", "Go on")]
    assert session.ask("Go on", GREEDY).outputs == llm.chat(asked, GREEDY)[0].outputs


def test_an_answer_aborted_before_its_first_word_was_never_asked_for(llm: LLM) -> None:
    session = ChatSession(llm)
    output = session.ask("Hello", GREEDY, is_cancelled=lambda: True)
    assert (output.outputs[0].finish_reason, output.outputs[0].token_ids) == ("abort", [])
    assert session.messages == []
    assert session.ask("Hello", GREEDY).outputs == llm.chat([Message("user", "Hello")], GREEDY)[0].outputs


def test_ctrl_c_in_the_middle_of_a_forward_leaves_a_session_that_goes_on(llm: LLM) -> None:
    session = ChatSession(llm)
    session.ask("Hello", GREEDY)
    before = list(session.messages)

    def interrupt(_module: nn.Module, _args: object, _output: Tensor) -> None:
        raise KeyboardInterrupt

    hook = llm.model.model.layers[0].register_forward_hook(interrupt)
    output = session.ask("Lost", GREEDY)
    hook.remove()
    assert output.outputs[0].finish_reason == "abort"
    assert session.messages == before
    asked = [*before, Message("user", "Now")]
    assert session.ask("Now", GREEDY).outputs == llm.chat(asked, GREEDY)[0].outputs


def test_an_error_in_the_callback_leaves_the_conversation_as_it_was(llm: LLM) -> None:
    session = ChatSession(llm)

    def broken(*_: object) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        session.ask("Hello", GREEDY, on_token=broken)
    assert session.messages == []
    assert session.ask("Hello", GREEDY).outputs == llm.chat([Message("user", "Hello")], GREEDY)[0].outputs


def test_what_does_not_fit_is_refused_and_changes_nothing(llm: LLM) -> None:
    session = ChatSession(llm)
    session.ask("Hello", GREEDY)
    before = list(session.messages)
    with pytest.raises(ContextOverflowError, match="context of 400"):
        session.ask("x" * 400, GREEDY)
    assert session.messages == before


@pytest.mark.parametrize("params", [SamplingParams(n=2), SamplingParams(prompt_logprobs=1)])
def test_parameters_that_a_session_cannot_honour(llm: LLM, params: SamplingParams) -> None:
    with pytest.raises(ParamsError, match=r"LLM\.chat|n must be 1"):
        ChatSession(llm).ask("Hello", params)


def test_a_model_without_a_template_cannot_chat() -> None:
    with pytest.raises(TemplateError, match="no chat template"):
        ChatSession(LLM.of(tiny_model())).ask("Hello")
