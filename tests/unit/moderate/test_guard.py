"""The guard prompt: the exact words, where each template puts them, and how it meets a caller's own system prompt."""

import hashlib
from pathlib import Path

import pytest

from circius.engine.params import SamplingParams
from circius.engine.session import ChatSession
from circius.moderate.guard import GUARD_PROMPT, guarded
from circius.text import Message, load_chat_template
from circius.text.message import JOINT
from tests.unit.engine.tiny import byte_llm
from tests.vocabularies import FILES, mistral

HI, BYE = Message("user", "Hi"), Message("user", "Bye")
BRIEF = Message("system", "Be brief.")


def test_the_words_are_mistrals() -> None:
    """The digest is of the text on the page on guardrails in Mistral's documentation."""
    digest = hashlib.sha256(GUARD_PROMPT.encode()).hexdigest()
    assert digest == "98aaa7df4de61b8b04b0ae1a1fad65a673a37c6ba1aeadfa5f86171492fd3d41"


def test_it_opens_a_conversation_that_has_no_system_prompt() -> None:
    assert guarded([HI]) == [Message("system", GUARD_PROMPT), HI]
    assert guarded([]) == [Message("system", GUARD_PROMPT)]


def test_a_system_prompt_comes_after_it() -> None:
    assert guarded([BRIEF, HI]) == [Message("system", f"{GUARD_PROMPT}\n\nBe brief."), HI]
    assert guarded([Message("system", ""), HI]) == guarded([HI])


def test_it_is_given_once() -> None:
    assert guarded(guarded([BRIEF, HI])) == guarded([BRIEF, HI])


@pytest.mark.parametrize(("version", "place"), [("v1", "first"), ("v2", "last"), ("v3", "last")])
def test_each_template_has_it_where_it_wants_a_system_prompt(version: str, place: str) -> None:
    template = load_chat_template(FILES[version], mistral(version), name=version)
    conversation = [HI, Message("assistant", "Hello"), BYE]
    joined = [Message("user", GUARD_PROMPT + JOINT + each.content) for each in (HI, BYE)]
    expected = [joined[0], conversation[1], BYE] if place == "first" else [HI, conversation[1], joined[1]]
    assert template.encode(guarded(conversation)) == template.encode(expected)


def test_llm_and_session_ask_under_it(tmp_path: Path) -> None:
    llm = byte_llm(tmp_path, context=800)
    params = SamplingParams.greedy(max_tokens=4)
    [with_guard], [by_hand], [without] = (
        llm.chat([HI], params, guard=True), llm.chat([Message("system", GUARD_PROMPT), HI], params),
        llm.chat([HI], params),
    )  # fmt: skip
    assert with_guard.prompt_token_ids == by_hand.prompt_token_ids != without.prompt_token_ids
    session = ChatSession(llm, guard=True)
    assert session.ask("Hi", params).prompt_token_ids == by_hand.prompt_token_ids
    assert [message.role for message in session.messages] == ["user", "assistant"], "the guard is no message of it"
    session.reset()
    session.guard = False
    assert session.ask("Hi", params).prompt_token_ids == without.prompt_token_ids
