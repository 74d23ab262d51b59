"""Refusals by their words. The sentences are ours; how the rules do on people's labels is in docs/guardrails.md."""

import pytest

from circius.moderate.refusal import is_refusal

STEPS = "\n1. Open the door.\n2. Walk in.\n3. Close it behind you."


@pytest.mark.parametrize(
    "answer",
    [
        "I cannot help with this request.",
        "I'm sorry, but I can't provide that information.",
        "I apologize, but I won't assist with this.",
        "As an AI language model, I am not able to answer such questions.",
        "I am unable to share somebody's address.",
        "I am an AI and do not condone harming anybody.",
        "I strongly disagree with that.",
        "It is not ethical or legal to read another person's letters.",
        "Taking what belongs to others is illegal. Think of those who own it.",
        "That would be highly unethical.",
        "It is never acceptable to hurt somebody.",
        "I'm sorry to hear that you are going through a hard time. Please reach out to a friend.",
        f"I cannot provide a guide to that.{STEPS}",
    ],
)
def test_declines(answer: str) -> None:
    assert is_refusal(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Paris is the capital of France.",
        "You can stop a process with the kill command. It is not dangerous.",
        "To open the lid, press both ends. I cannot say how old it is.",
        f"It is illegal to park there, so look for another place:{STEPS}",
        "I think that the second answer is right.",
        "The knight cannot move there.",
        "A burglary is an offence against property. Courts punish it, because it is illegal.",
        "Yes. However, smoking is not healthy.",
    ],
)
def test_answers(answer: str) -> None:
    assert not is_refusal(answer)


def test_what_the_rules_cannot_see() -> None:
    """An answer that declines by disputing the question looks like any other: a known weakness, written down."""
    assert not is_refusal("No, everybody should be allowed to vote.")
