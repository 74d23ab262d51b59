"""The chat template that a model brings along, rendered in a sandbox."""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property, partial

from circius.base.errors import TemplateError
from circius.text.chat import ChatTemplate
from circius.text.injection import TURN_MARKS, Injection, finer_spelling, refuse_literals
from circius.text.jinja_values import Chat, Hide, as_mapping, mapped, shown, texts_in
from circius.text.message import Message
from circius.text.sandbox import compile_template, render, uses_variable
from circius.text.segments import Segment, segments_of_renderings
from circius.text.tokenizer import Tokenizer
from circius.text.tool_form import DESCRIBED, CallForm
from circius.text.tool_ids import with_nine_character_ids
from circius.text.tool_probe import ToolStyle, find_style
from circius.text.tool_prose import joined_in_words
from circius.text.tools import Tool
from circius.text.verbatim import unused_characters

_CONTINUE_TAG = "CIRCIUS_CONTINUES_HERE "
_PROBE = "CIRCIUS_PROBE"
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
        tool_source: str | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        """tool_source: the template for conversations with tools, where a model has one of its own for them."""
        self.source = source
        self._template = compile_template(source)
        self._tool_template_source = tool_source or source
        self._tool_template = compile_template(tool_source) if tool_source else self._template
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

    @property
    def call_form(self) -> CallForm:
        return DESCRIBED if self._style is None else self._style.form

    def _encode(self, messages: Sequence[Message], tools: Sequence[Tool], *, continue_final: bool) -> list[int]:
        hide, literal_of = self._hiding(messages, tools)
        return self._ids(self._render_final(messages, tools, hide, continue_final=continue_final), literal_of)

    def _segments(self, messages: Sequence[Message], tools: Sequence[Tool]) -> list[Segment]:
        hide, literal_of = self._hiding(messages, tools)
        return segments_of_renderings(
            messages,
            render=lambda part, asks: self._render_chat(*self._chat(part, tools), asks, hide),
            encode=partial(self._ids, literal_of=literal_of),
            controls=self.tokenizer.special_ids,
            stop_ids=self.stop_ids,
            source=self.tokenizer.source,
        )

    def _hiding(self, messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[Hide, dict[str, str]]:
        """What puts a private-use character in the place of each literal, and which literal it stands for."""
        if self._injection == "strict":
            refuse_literals(messages, self._literals, tools)
        if self._injection == "allow":
            return shown, {}
        texts = texts_in(list(self._chat(messages, tools)))
        found = sorted({literal for text in texts for literal in self._literal_pattern.findall(text)})
        marks = dict(zip(found, unused_characters("".join([self.source, *texts])), strict=False))
        hide = partial(self._literal_pattern.sub, lambda literal: marks[literal[0]])
        return hide, {mark: literal for literal, mark in marks.items()}

    def _ids(self, text: str, literal_of: Mapping[str, str]) -> list[int]:
        """The ids of a rendered text, the hidden literals as ordinary text."""
        pattern = f"([{''.join(literal_of)}])" if literal_of else "(?!)"
        parts = [
            self._as_text(literal_of[part]) if part in literal_of else part for part in re.split(pattern, text) if part
        ]
        return self.tokenizer.encode_parts(parts, special=True)

    def _render(self, messages: Sequence[Message], tools: Sequence[Tool], *, continue_final: bool) -> str:
        return self._render_final(messages, tools, shown, continue_final=continue_final)

    def _render_final(
        self, messages: Sequence[Message], tools: Sequence[Tool], hide: Hide, *, continue_final: bool
    ) -> str:
        chat, definitions = self._chat(messages, tools)
        if not continue_final:
            return self._render_chat(chat, definitions, True, hide)
        final = chat[-1]["content"]
        chat[-1]["content"] += _CONTINUE_TAG
        return _cut_at_tag(self._render_chat(chat, definitions, False, hide), hide(final))

    def _render_chat(self, chat: Chat, definitions: Chat | None, asks: bool, hide: Hide) -> str:
        """The conversation as text; with the words that open an answer if `asks`."""
        has_tools = definitions is not None or any("tool_calls" in message for message in chat)
        return render(
            self._tool_template if has_tools else self._template,
            {
                **self._variables,
                "messages": mapped(chat, hide),
                "tools": mapped(definitions, hide),
                "documents": None,
                "add_generation_prompt": asks,
            },
        )

    def _chat(self, messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[Chat, Chat | None]:
        """The messages and the tools as the template takes them: as they are, or all in words."""
        if not tools and not any(message.tool_calls or message.role == "tool" for message in messages):
            return [{"role": message.role, "content": message.content} for message in messages], None
        if self._style is None:
            worded = joined_in_words(messages, tools, takes_system=self._takes_system)
            return [{"role": message.role, "content": message.content} for message in worded], None
        given = messages
        if self._style.needs_nine:
            given = with_nine_character_ids(messages, all_calls=True)
        chat = [as_mapping(message, empty_content=self._style.empty_content) for message in given]
        return chat, [tool.definition for tool in tools] or None

    @cached_property
    def _style(self) -> ToolStyle | None:
        """What the template expects of tools; None if it knows nothing of them, or writes calls that can't be read."""
        if not uses_variable(self._tool_template_source, "tools"):
            return None
        return find_style(
            lambda chat, definitions, asks: self._render_chat(chat, definitions, asks, shown),
            specials=self.tokenizer.special_ids,
            stops=[self.tokenizer.piece(token) for token in sorted(self.stop_ids)],
        )

    @cached_property
    def _takes_system(self) -> bool:
        """Whether the template shows a system message."""
        chat = [{"role": "system", "content": _PROBE}, {"role": "user", "content": "."}]
        try:
            return _PROBE in self._render_chat(chat, None, True, shown)
        except TemplateError:
            return False

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
