"""Mistral's instruction templates v1, v2 and v3, id for id as mistral-common 1.13.1 encodes conversations.

v1:      <s> [INST] user [/INST] assistant</s> [INST] user [/INST]      (the brackets are text)
v2, v3:  <s>[INST] user[/INST] assistant</s>[INST] user[/INST]          (the brackets are control tokens)
tools:   [AVAILABLE_TOOLS] [{"type": "function", ...}][/AVAILABLE_TOOLS][INST] last user[/INST]
         [TOOL_CALLS] [{"name": "f", "arguments": {...}}]</s>[TOOL_RESULTS] {"content": ...}[/TOOL_RESULTS] assistant

Every part is encoded by itself, so the spaces after `<s>`, `</s>` and the control tokens are the prefix space of
SentencePiece. v2 and v3 differ in tools only: v3 has ids, takes several results and keeps the calls of earlier turns.
v1 knows no tools; they are put in words.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from circius.base.errors import TemplateError
from circius.text.chat import ChatTemplate
from circius.text.injection import TURN_MARKS, Injection, escaped, refuse_literals
from circius.text.message import JOINT, Message, check_order
from circius.text.mistral_tools import (
    CALLS,
    RESULTS,
    TOOL_MARKS,
    TOOLS,
    calls_json,
    named_result_json,
    result_json,
    tools_json,
    with_names,
)
from circius.text.segments import Segment
from circius.text.tokenizer import Tokenizer
from circius.text.tool_form import CallForm
from circius.text.tool_ids import with_nine_character_ids
from circius.text.tool_prose import guide, in_words
from circius.text.tools import Tool, ToolCall

Version = Literal["v1", "v2", "v3"]


@dataclass(frozen=True)
class _Turn:
    """Consecutive messages of one role, as one."""

    role: str
    content: str
    calls: tuple[ToolCall, ...] = ()
    results: tuple[Message, ...] = ()
    """The messages of a run of the role tool: each stays one."""


class MistralTemplate(ChatTemplate):
    """What the three versions share: merging, the system prompt, and the order of the parts."""

    def __init__(
        self, version: Version, tokenizer: Tokenizer, *, injection: Injection, notes: tuple[str, ...] = ()
    ) -> None:
        if tokenizer.bos_id is None or not tokenizer.eos_ids:
            raise TemplateError(f"the {version} template needs BOS and EOS, which {tokenizer.source} does not name")
        super().__init__(version, tokenizer, stop_ids=tokenizer.eos_ids, notes=notes)
        self._bos_id = tokenizer.bos_id
        self._eos_id = _eos_id(tokenizer)
        self._injection = injection

    def _encode(self, messages: Sequence[Message], tools: Sequence[Tool], *, continue_final: bool) -> list[int]:
        ids = [token for segment in self._segments(messages, tools) for token in segment.ids]
        return ids[:-1] if continue_final else ids

    def _segments(self, messages: Sequence[Message], tools: Sequence[Tool]) -> list[Segment]:
        check_order(messages)
        prepared = self._prepared(messages)
        if self._injection == "strict":
            refuse_literals(prepared, (*TURN_MARKS, *self._control_literals()), tools)
        segments = [Segment([self._bos_id])]
        answers = _answers(messages)
        turns = self._with_system(_merged(prepared), self._system(prepared, tools))
        last_user = max(place for place, turn in enumerate(turns) if turn.role == "user")
        for place, turn in enumerate(turns):
            if turn.role == "user":
                shown = tools if place == last_user else ()
                segments.append(Segment([*self._tools(shown), *self._user(turn.content)]))
            elif turn.role == "tool":
                segments.append(Segment(self._results(turn.results, is_past=place < last_user)))
            else:
                ids = self._answer(turn, is_past=place < last_user)
                segments.append(Segment([*ids, self._eos_id] if ids is not None else [], next(answers)))
        return [segment for segment in segments if segment.ids]

    def _render(self, messages: Sequence[Message], tools: Sequence[Tool], *, continue_final: bool) -> str:
        ids = self._encode(messages, tools, continue_final=continue_final)
        return self.tokenizer.decode(ids, skip_special=False)

    def _prepared(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The messages in the form that the other methods expect, one for one."""
        return messages

    def _system(self, messages: Sequence[Message], tools: Sequence[Tool]) -> str:
        return JOINT.join(message.content for message in messages if message.role == "system" and message.content)

    def _answer(self, turn: _Turn, *, is_past: bool) -> list[int] | None:
        """The assistant's turn without its end; None for one that is left out, end and all.

        is_past: whether the user has spoken since.
        """
        return self._assistant(turn.content)

    def _tools(self, tools: Sequence[Tool]) -> list[int]:
        """What stands before the last user's turn."""
        return []

    def _results(self, results: Sequence[Message], *, is_past: bool) -> list[int]:
        raise AssertionError("this template has put results in words")

    def _with_system(self, turns: list[_Turn], system: str) -> list[_Turn]:
        """The turns with the system prompt in the first user turn (v1) or the last (v2, v3)."""
        if not turns or turns[0].role != "user":
            turns = [_Turn("user", ""), *turns]
        if not system:
            return turns
        users = [index for index, turn in enumerate(turns) if turn.role == "user"]
        at = users[0] if self.name == "v1" else users[-1]
        return [*turns[:at], _Turn("user", system + JOINT + turns[at].content), *turns[at + 1 :]]

    def _text(self, text: str) -> list[int]:
        return self.tokenizer.encode_raw(text) if self._injection == "allow" else self.tokenizer.encode(text)

    def _control_literals(self) -> list[str]:
        return [self.tokenizer.piece(self._bos_id), self.tokenizer.piece(self._eos_id)]

    @abstractmethod
    def _user(self, content: str) -> list[int]: ...

    @abstractmethod
    def _assistant(self, content: str) -> list[int]: ...


class MistralV1(MistralTemplate):
    """The template of Mistral 7B Instruct v0.1 and v0.2."""

    def __init__(self, tokenizer: Tokenizer, *, injection: Injection, notes: tuple[str, ...] = ()) -> None:
        super().__init__("v1", tokenizer, injection=injection, notes=notes)

    def _prepared(self, messages: Sequence[Message]) -> Sequence[Message]:
        return in_words(messages)

    def _system(self, messages: Sequence[Message], tools: Sequence[Tool]) -> str:
        parts = [super()._system(messages, tools), guide(tools) if tools else ""]
        return JOINT.join(part for part in parts if part)

    def _user(self, content: str) -> list[int]:
        if self._injection != "escape":
            return self._text(f"[INST] {content} [/INST]")
        return self.tokenizer.encode_parts(["[INST] ", *escaped(content, self.tokenizer), " [/INST]"])

    def _assistant(self, content: str) -> list[int]:
        if self._injection != "escape":
            return self._text(content)
        return self.tokenizer.encode_parts(escaped(content, self.tokenizer))


class MistralV23(MistralTemplate):
    """The templates v2 and v3 (Mistral 7B Instruct v0.3), whose control tokens no text can produce."""

    def __init__(
        self, version: Version, tokenizer: Tokenizer, *, injection: Injection, notes: tuple[str, ...] = ()
    ) -> None:
        super().__init__(version, tokenizer, injection=injection, notes=notes)
        self._begin, self._end = (self._control(mark) for mark in TURN_MARKS)
        has_tools = all(mark in tokenizer.special_ids for mark in TOOL_MARKS)
        self._tool_ids = {mark: tokenizer.special_ids[mark] for mark in TOOL_MARKS} if has_tools else {}

    @property
    def call_form(self) -> CallForm:
        if not self._tool_ids:
            return super().call_form  # never asked for: such a vocabulary has no tools at all
        return CallForm(
            begin=f"{CALLS}[", between=", ", end="]", specials={CALLS: self._tool_ids[CALLS]},
            most_calls=1 if self.name == "v2" else None,  # which has room for one result
        )  # fmt: skip

    def _prepared(self, messages: Sequence[Message]) -> Sequence[Message]:
        return with_nine_character_ids(messages) if self.name == "v3" else with_names(messages)

    def _user(self, content: str) -> list[int]:
        return [self._begin, *self._text(content), self._end]

    def _assistant(self, content: str) -> list[int]:
        return self._text(content.rstrip(" "))

    def _answer(self, turn: _Turn, *, is_past: bool) -> list[int] | None:
        calls = () if is_past and self.name == "v2" else turn.calls
        if turn.calls and not calls and not turn.content:
            return None
        said = self._assistant(turn.content) if turn.content or not calls else []
        return [*said, *self._calls(calls)]

    def _calls(self, calls: Sequence[ToolCall]) -> list[int]:
        if not calls:
            return []
        return [self._tool_id(CALLS), *self._text(calls_json(calls, with_ids=self.name == "v3"))]

    def _tools(self, tools: Sequence[Tool]) -> list[int]:
        return self._between(TOOLS, tools_json(tools)) if tools else []

    def _results(self, results: Sequence[Message], *, is_past: bool) -> list[int]:
        if self.name == "v3":
            return [token for result in results for token in self._between(RESULTS, result_json(result))]
        if is_past:
            return []
        if len(results) > 1:
            raise TemplateError(
                f"the v2 template has room for the result of one call between two answers, got {len(results)}: ask for "
                "one call at a time (parallel_tool_calls: false)"
            )
        return self._between(RESULTS, named_result_json(results[0]))

    def _between(self, marks: tuple[str, str], text: str) -> list[int]:
        return [self._tool_id(marks[0]), *self._text(text), self._tool_id(marks[1])]

    def _tool_id(self, mark: str) -> int:
        """A control token that only tools need.

        Raises:
            TemplateError: the vocabulary has none of them.
        """
        if not self._tool_ids:
            raise TemplateError(f"tools need control tokens such as {mark}, which {self.tokenizer.source} lacks")
        return self._tool_ids[mark]

    def _control_literals(self) -> list[str]:
        return [*super()._control_literals(), *self._tool_ids]

    def _control(self, mark: str) -> int:
        index = self.tokenizer.special_ids.get(mark)
        if index is None:
            raise TemplateError(
                f"the {self.name} template needs the control token {mark}, which {self.tokenizer.source} lacks; "
                "v1 is the template for a vocabulary without it"
            )
        return index


def mistral_version(tokenizer: Tokenizer) -> Version | None:
    """The template version that a Mistral 7B vocabulary was made for, or None for any other vocabulary.

    v2 has `[INST]` as control token 3; v3 has `[IMG]` at 10 besides; v1 has neither, and is told from other
    vocabularies of its kind by the ids that spell `[INST]`.
    """
    begin = tokenizer.special_ids.get(TURN_MARKS[0])
    if begin is not None:
        if begin != 3 or "[SYSTEM_PROMPT]" in tokenizer.special_ids:
            return None
        return "v3" if "[IMG]" in tokenizer.special_ids else "v2"
    spelling = [tokenizer.id_of(piece) for piece in ("▁[", "INST", "]")]
    return "v1" if spelling == [733, 16289, 28793] else None


def _merged(messages: Sequence[Message]) -> list[_Turn]:
    """The turns of all but the system; consecutive messages of a role become one, empty ones add nothing."""
    turns = []
    for role, run in groupby(messages, key=lambda message: message.role):
        if role == "system":
            continue
        own = list(run)
        content = JOINT.join(message.content for message in own if message.content and role != "tool")
        calls = tuple(call for message in own for call in message.tool_calls)
        turns.append(_Turn(role, content, calls, tuple(own) if role == "tool" else ()))
    return turns


def _answers(messages: Sequence[Message]) -> Iterator[tuple[int, ...]]:
    """For each of the assistant's turns, the places of the messages that became it."""
    runs = groupby(enumerate(messages), key=lambda placed: placed[1].role)
    return (tuple(place for place, _ in run) for role, run in runs if role == "assistant")


def _eos_id(tokenizer: Tokenizer) -> int:
    """The id that ends an assistant's turn: `</s>`, or the only EOS there is."""
    named = tokenizer.id_of("</s>")
    return named if named in tokenizer.eos_ids and named is not None else min(tokenizer.eos_ids)
