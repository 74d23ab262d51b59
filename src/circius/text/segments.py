"""A whole conversation in segments: what a model is given, and what it answers, each as ids."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from circius.base.errors import TemplateError
from circius.text.message import Message


@dataclass(frozen=True)
class Segment:
    """Some ids in a row that are given, or that are one answer with the token that ends it."""

    ids: Sequence[int]
    answers: tuple[int, ...] = ()
    """The places in the conversation of the messages that this is the answer of; empty for what is given."""

    @property
    def is_answer(self) -> bool:
        return bool(self.answers)


def check_learnable(messages: Sequence[Message]) -> None:
    """Does nothing for a conversation that a model can learn from: somebody asks, and the assistant has the last word.

    Raises:
        TemplateError: it is empty, begins with the assistant or does not end with it.
    """
    if not messages:
        raise TemplateError("the conversation is empty: give at least a question and its answer")
    if messages[0].role == "assistant":
        raise TemplateError("messages[0]: the assistant cannot speak first; begin with a system or a user message")
    last = len(messages) - 1
    if messages[last].role != "assistant":
        raise TemplateError(
            f"messages[{last}]: the conversation ends with a {messages[last].role} message, and only what the "
            "assistant says is learnt; leave that message out, or add the answer"
        )


def segments_of_renderings(
    messages: Sequence[Message],
    *,
    render: Callable[[Sequence[Message], bool], str],
    encode: Callable[[str], list[int]],
    controls: Mapping[str, int],
    stop_ids: Collection[int],
    source: Path,
) -> list[Segment]:
    """The segments of a template that can only be watched from outside.

    `render(messages, asks)` is the text of a conversation, with the words that open an answer if `asks`. What stands
    before an answer is what is rendered for a prompt that ends there; the answer goes on to the first of `stop_ids`.
    Both are checked to be beginnings of the whole, as text and as ids, so that no token is half an answer's.

    controls: the control tokens by their text. What stands between two of them is encoded by itself, so of a prompt
        only what follows its last one need be compared.

    Raises:
        TemplateError: the template writes a conversation otherwise once it goes on, or never ends an answer.
    """
    whole_text = render(messages, False)
    whole = encode(whole_text)
    pattern = re.compile("|".join(map(re.escape, sorted(controls, key=len, reverse=True))) or "(?!)")
    ids = frozenset(controls.values())
    places = [index for index, token in enumerate(whole) if token in ids]
    stops = {text for text, token in controls.items() if token in stop_ids}
    segments: list[Segment] = []
    at = 0
    for place, message in enumerate(messages):
        if message.role != "assistant":
            continue
        prompt_text, answered_text = render(messages[:place], True), render(messages[: place + 1], False)
        if not (whole_text.startswith(answered_text) and answered_text.startswith(prompt_text)):
            raise _refusal(place, source, "writes what stands before an answer otherwise once the answer is there")
        if stops.isdisjoint(pattern.findall(answered_text, len(prompt_text))):
            wanted = " or ".join(sorted(stops)) or "a token"
            raise _refusal(place, source, f"ends no answer with {wanted}, where generation ends")
        found = list(pattern.finditer(prompt_text))
        last = places[len(found) - 1] if 0 < len(found) <= len(places) else 0
        tail = encode(prompt_text[found[-1].start() if found else 0 :])
        begin = last + len(tail)
        if begin < at or whole[last:begin] != tail:
            raise _refusal(place, source, "and the answer's first characters become one token together")
        end = next(index for index in range(begin, len(whole)) if whole[index] in stop_ids) + 1
        segments += [Segment(whole[at:begin]), Segment(whole[begin:end], (place,))]
        at = end
    return [*segments, Segment(whole[at:])] if at < len(whole) else segments


def _refusal(place: int, source: Path, why: str) -> TemplateError:
    return TemplateError(
        f"messages[{place}]: which tokens are the answer cannot be told: the model's own chat template ({source}) "
        f"{why}; name another template (v1, v2 or v3), or change the message"
    )
