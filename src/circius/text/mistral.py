"""Mistral's instruction templates v1, v2 and v3, id for id as mistral-common 1.13.1 encodes plain conversations.

v1:      <s> [INST] user [/INST] assistant</s> [INST] user [/INST]      (the brackets are text)
v2, v3:  <s>[INST] user[/INST] assistant</s>[INST] user[/INST]          (the brackets are control tokens)

Every part is encoded by itself, so the spaces after `<s>`, `</s>` and the control tokens are the prefix space of
SentencePiece. v2 and v3 differ in tool calls only, which are not implemented.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from circius.base.errors import TemplateError
from circius.text.chat import ChatTemplate
from circius.text.injection import TURN_MARKS, Injection, escaped, refuse_literals
from circius.text.message import JOINT, Message, check_order
from circius.text.tokenizer import Tokenizer

Version = Literal["v1", "v2", "v3"]


@dataclass(frozen=True)
class _Turn:
    """Consecutive messages of one role, as one."""

    role: str
    content: str


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

    def _encode(self, messages: Sequence[Message], *, continue_final: bool) -> list[int]:
        check_order(messages)
        if self._injection == "strict":
            refuse_literals(messages, (*TURN_MARKS, *self._control_literals()))
        ids = [self._bos_id]
        turns = self._with_system(_merged(messages), _system_prompt(messages))
        for turn in turns:
            ids += self._user(turn.content) if turn.role == "user" else [*self._assistant(turn.content), self._eos_id]
        return ids[:-1] if continue_final else ids

    def _render(self, messages: Sequence[Message], *, continue_final: bool) -> str:
        return self.tokenizer.decode(self._encode(messages, continue_final=continue_final), skip_special=False)

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

    def _user(self, content: str) -> list[int]:
        return [self._begin, *self._text(content), self._end]

    def _assistant(self, content: str) -> list[int]:
        return self._text(content.rstrip(" "))

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
    """The user's and the assistant's turns; consecutive messages of a role become one, empty ones add nothing."""
    runs = groupby(messages, key=lambda message: message.role)
    return [
        _Turn(role, JOINT.join(message.content for message in run if message.content))
        for role, run in runs
        if role != "system"
    ]


def _system_prompt(messages: Sequence[Message]) -> str:
    return JOINT.join(message.content for message in messages if message.role == "system" and message.content)


def _eos_id(tokenizer: Tokenizer) -> int:
    """The id that ends an assistant's turn: `</s>`, or the only EOS there is."""
    named = tokenizer.id_of("</s>")
    return named if named in tokenizer.eos_ids and named is not None else min(tokenizer.eos_ids)
