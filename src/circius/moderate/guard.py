"""The guard prompt: four sentences that the paper puts before a conversation (section 5.1)."""

from collections.abc import Sequence

from circius.text.message import JOINT, Message

GUARD_PROMPT = (
    "Always assist with care, respect, and truth. Respond with utmost utility yet securely. Avoid harmful, unethical, "
    "prejudiced, or negative content. Ensure replies promote fairness and positivity."
)
"""Mistral's own words, from the paper and from the page on guardrails in its documentation."""


def guarded(messages: Sequence[Message]) -> list[Message]:
    """The conversation under the guard prompt, which is, or begins, its system prompt.

    A system message that opens the conversation stays, after the guard and an empty line: so there is one system
    message at most, which every template can place, and a caller's instructions come last. Where the system prompt
    stands among the tokens is the template's affair: v1 has it in the first user turn, v2 and v3 in the last. A
    conversation that has the guard already is not given a second.

    >>> [message.role for message in guarded([Message("user", "Hi")])]
    ['system', 'user']
    >>> guarded([Message("system", "Be brief."), Message("user", "Hi")])[0].content[-22:]
    'positivity.\\n\\nBe brief.'
    """
    opening = messages[0] if messages and messages[0].role == "system" else None
    if opening is None:
        return [Message("system", GUARD_PROMPT), *messages]
    if opening.content.startswith(GUARD_PROMPT):
        return list(messages)
    content = GUARD_PROMPT + JOINT + opening.content if opening.content else GUARD_PROMPT
    return [Message("system", content), *messages[1:]]
