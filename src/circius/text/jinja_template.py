"""The chat template that a model brings along, rendered in a sandbox."""

import re
from collections.abc import Mapping, Sequence

from circius.base.errors import TemplateError
from circius.text.chat import ChatTemplate
from circius.text.injection import TURN_MARKS, Injection, finer_spelling, refuse_literals
from circius.text.message import Message
from circius.text.sandbox import compile_template, render
from circius.text.tokenizer import Tokenizer
from circius.text.verbatim import unused_characters

_CONTINUE_TAG = "CIRCIUS_CONTINUES_HERE "
_TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|endofturn|>")


class JinjaTemplate(ChatTemplate):
    """A model's own Jinja template.

    Control-token text in a message is taken out before rendering and put back as ordinary text after it, so a message
    cannot forge a turn; a text without such literals is not touched. The same is done for a plain-text `[INST]` where
    the template writes it.
    """

    def __init__(
        self,
        source: str,
        tokenizer: Tokenizer,
        *,
        injection: Injection,
        special_tokens: Mapping[str, str] | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.source = source
        self._template = compile_template(source)
        self._injection = injection
        self._variables = {**_named_tokens(tokenizer), **(special_tokens or {})}
        plain_marks = [mark for mark in TURN_MARKS if mark in source and mark not in tokenizer.special_ids]
        self._plain_marks = TURN_MARKS if plain_marks else ()
        self._literals = sorted({*tokenizer.special_ids, *self._plain_marks}, key=len, reverse=True)
        self._literal_pattern = re.compile("|".join(map(re.escape, self._literals)) or "(?!)")
        ends = {tokenizer.special_ids[end] for end in _TURN_ENDS if end in source and end in tokenizer.special_ids}
        if ends - tokenizer.eos_ids:
            pieces = ", ".join(tokenizer.piece(token) for token in sorted(ends - tokenizer.eos_ids))
            notes = (*notes, f"An answer also ends at {pieces}, which ends a turn in the model's chat template.")
        super().__init__("model", tokenizer, stop_ids=tokenizer.eos_ids | ends, notes=notes)

    def _encode(self, messages: Sequence[Message], *, continue_final: bool) -> list[int]:
        if self._injection == "strict":
            refuse_literals(messages, self._literals)
        if self._injection == "allow":
            return self.tokenizer.encode(self._render(messages, continue_final=continue_final), special=True)
        marks = self._marks(messages)
        hidden = [
            Message(message.role, self._literal_pattern.sub(lambda found: marks[found[0]], message.content))
            for message in messages
        ]
        text = self._render(hidden, continue_final=continue_final)
        literal_of = {mark: literal for literal, mark in marks.items()}
        pattern = f"([{''.join(literal_of)}])" if marks else "(?!)"
        parts = [
            self._as_text(literal_of[part]) if part in literal_of else part for part in re.split(pattern, text) if part
        ]
        return self.tokenizer.encode_parts(parts, special=True)

    def _render(self, messages: Sequence[Message], *, continue_final: bool) -> str:
        chat = [{"role": message.role, "content": message.content} for message in messages]
        if continue_final:
            chat[-1]["content"] += _CONTINUE_TAG
        text = render(
            self._template,
            {
                **self._variables,
                "messages": chat,
                "tools": None,
                "documents": None,
                "add_generation_prompt": not continue_final,
            },
        )
        return _cut_at_tag(text, messages[-1].content) if continue_final else text

    def _marks(self, messages: Sequence[Message]) -> dict[str, str]:
        """A private-use character for each literal that the messages contain."""
        found = sorted({found for message in messages for found in self._literal_pattern.findall(message.content)})
        everything = self.source + "".join(message.content for message in messages)
        return dict(zip(found, unused_characters(everything), strict=False))

    def _as_text(self, literal: str) -> list[int]:
        """The ids of a literal in the middle of a text, none of them a control token's."""
        if literal in self._plain_marks:
            before = literal[: literal.index("INST")]
            return [*self._middle(before), *finer_spelling(self.tokenizer), *self._middle("]")]
        return self._middle(literal)

    def _middle(self, text: str) -> list[int]:
        """The ids of a text without a prefix space, which a text after fixed ids does not get."""
        prefix = self.tokenizer.encode_parts([()])
        return self.tokenizer.encode_parts([(), text])[len(prefix) :]


def _cut_at_tag(text: str, final: str) -> str:
    """The rendered text up to the end of the message that is to be continued."""
    tag = _CONTINUE_TAG.strip()
    at = text.rfind(tag)
    if at < 0 or final.strip() not in text:
        raise TemplateError(
            "the model's chat template leaves out or changes the last message, so it cannot be continued; "
            "end with a user message"
        )
    kept_spaces = text[at : at + len(_CONTINUE_TAG)] == _CONTINUE_TAG
    return text[:at] if kept_spaces else text[:at].rstrip()


def _named_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """`bos_token` and `eos_token`, as templates call them."""
    named = {}
    if tokenizer.bos_id is not None:
        named["bos_token"] = tokenizer.piece(tokenizer.bos_id)
    if tokenizer.eos_ids:
        named["eos_token"] = tokenizer.piece(min(tokenizer.eos_ids))
    return named
