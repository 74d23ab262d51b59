"""Whole conversations and their labels: mistral-common's fine-tuning encoding, and transformers' assistant masks."""

import string
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mistral_common.protocol.instruct.messages import AssistantMessage, SystemMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.protocol.instruct.validator import ValidationMode
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from circius.base.errors import TemplateError
from circius.text import ChatTemplate, Message, export_tokenizer, load_chat_template, load_tokenizer
from circius.train.conversations import Conversation
from circius.train.labels import labelled
from circius.train.records import Place
from tests.vocabularies import CONTROL, FILES, any_text, conversations, mistral

VERSIONS = ("v1", "v2", "v3")
PEERS = {
    "v1": MistralTokenizer.from_file(str(FILES["v1"]), mode=ValidationMode.finetuning),
    "v2": MistralTokenizer.from_file(str(FILES["v2"]), mode=ValidationMode.finetuning),
    "v3": MistralTokenizer.from_file(str(FILES["v3"]), mode=ValidationMode.finetuning),
}
KINDS = {"user": UserMessage, "assistant": AssistantMessage, "system": SystemMessage}
MARKED_CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
whole_conversations = conversations(any_text, continues=True)


def plain(text: str) -> bool:
    return not any(mark in text for mark in ("[INST]", "[/INST]", "▁", *CONTROL))


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=60, deadline=None)
@given(messages=whole_conversations)
def test_whole_conversations_are_mistral_commons(version: str, messages: list[Message]) -> None:
    if not all(plain(message.content) for message in messages):
        return
    request = ChatCompletionRequest(messages=[KINDS[one.role](content=one.content) for one in messages])
    template = load_chat_template(FILES[version], mistral(version))
    segments = template.segments(messages)
    assert [token for segment in segments for token in segment.ids] == PEERS[version].encode_chat_completion(
        request
    ).tokens
    answers = [place for segment in segments for place in segment.answers]
    assert answers == [place for place, message in enumerate(messages) if message.role == "assistant"]
    assert all(segment.ids[-1] == 2 for segment in segments if segment.is_answer)


@pytest.fixture(scope="module")
def peer(demo_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    folder = tmp_path_factory.mktemp("demo")
    export_tokenizer(demo_gguf, folder)
    return AutoTokenizer.from_pretrained(folder)


@cache
def demo_template(path: Path) -> ChatTemplate:
    return load_chat_template(path, load_tokenizer(path))


@settings(max_examples=60, deadline=None)
@given(messages=conversations(st.text(string.printable), continues=True), system=st.text(string.printable, min_size=1))
def test_the_demo_models_labels_are_those_of_marked_answers(
    demo_gguf: Path, peer: PreTrainedTokenizerFast, messages: list[Message], system: str
) -> None:
    """transformers is told by marks in the template where answers are, circius finds it out without any."""
    template = demo_template(demo_gguf)
    messages = [Message("system", system), *messages]  # without one, the model's own template adds one
    theirs = peer.apply_chat_template(
        [{"role": one.role, "content": one.content} for one in messages],
        chat_template=MARKED_CHATML,
        return_assistant_tokens_mask=True,
        return_dict=True,
    )
    learnt = tuple(message.role == "assistant" for message in messages)
    try:
        ours = labelled(template, Conversation(tuple(messages), learnt, Place(demo_gguf, 1)))
    except TemplateError:
        # A line break of the template's and one that an answer begins with are one token: that is refused.
        if any(one.role == "assistant" and one.content[0] in string.whitespace for one in messages):
            return
        raise
    assert ours.ids.tolist() == theirs["input_ids"]
    assert ours.learnt.tolist() == [bool(one) for one in theirs["assistant_masks"]]
