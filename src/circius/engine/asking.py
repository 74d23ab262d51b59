"""From prompts and conversations to checked requests: tokenizer, chat template, forms, tools."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from circius.base.errors import TemplateError
from circius.engine.grammars import Grammars
from circius.engine.params import SamplingParams
from circius.engine.prompts import encode_prompt
from circius.engine.request import Limits, Request, make_request
from circius.engine.structured import Constraint, StructuredOutputs
from circius.engine.tools import ToolChoice, check_params, tool_use, with_tools
from circius.moderate.guard import guarded
from circius.text import ChatTemplate, Message, Tokenizer
from circius.text.message import as_messages
from circius.text.tools import Tool

_NO_CHAT = "this model has no chat template: use generate with a plain prompt, or name a template (v1, v2 or v3)"


class Asker:
    """What can be asked of a model with this tokenizer and template.

    context: the most tokens of a prompt and its answer together. no_chat: why there is no template, if it is known.
    """

    def __init__(
        self,
        tokenizer: Tokenizer | None,
        template: ChatTemplate | None,
        *,
        vocab_size: int,
        context: int,
        no_chat: str | None = None,
    ) -> None:
        self._tokenizer, self._template = tokenizer, template
        self._vocab_size, self._context = vocab_size, context
        self._no_chat = no_chat or _NO_CHAT
        self._grammars: Grammars | None = None

    def completion(self, prompt: str | Sequence[int], params: SamplingParams, *, adds_bos: bool = True) -> Request:
        """The checked request for the text after a prompt.

        adds_bos: whether a text gets BOS in front, if the tokenizer adds one.

        Raises:
            PromptError, ContextOverflowError, ParamsError: as `LLM.generate`.
        """
        return make_request(
            encode_prompt(prompt, self._tokenizer, adds_bos=adds_bos),
            params,
            self._limits(is_chat=False),
            prompt=prompt if isinstance(prompt, str) else None,
        )

    def chat(
        self,
        messages: Sequence[Message | Mapping[str, Any]],
        params: SamplingParams,
        *,
        tools: Sequence[Tool | Mapping[str, Any]] | None = None,
        tool_choice: ToolChoice | None = None,
        parallel_tool_calls: bool = True,
        continue_final: bool = False,
        guard: bool = False,
    ) -> Request:
        """The checked request for the next answer in a conversation; with `guard`, under the guard prompt.

        Raises:
            TemplateError, PromptError, ContextOverflowError, ParamsError: as `LLM.chat`.
        """
        if self._template is None:
            raise TemplateError(self._no_chat)
        if guard:
            messages = guarded(as_messages(messages))
        use = tool_use(tools, tool_choice, parallel=parallel_tool_calls)
        shown = () if use is None else use.shown
        if use is not None:
            check_params(use, params)
        request = make_request(
            self._template.encode(messages, tools=shown, continue_final=continue_final),
            params,
            self._limits(is_chat=True),
            prompt=self._template.render(messages, tools=shown, continue_final=continue_final),
            continues_text=continue_final,
        )
        if use is None:
            return request
        assert self._tokenizer is not None
        return with_tools(
            request, use, self._template.call_form,
            tokenizer=self._tokenizer, vocab_size=self._vocab_size, forms=self._forms,
        )  # fmt: skip

    def _constraint(self, wanted: StructuredOutputs) -> Callable[[], Constraint]:
        """What makes the constraints of answers of this form.

        Raises:
            ParamsError: the form cannot be honoured.
        """
        return self._forms().constraint(wanted)

    def _forms(self) -> Grammars:
        """The forms that answers can be given.

        Raises:
            CirciusError: they need something that is not installed, or an end token.
        """
        assert self._tokenizer is not None
        if self._grammars is None:
            turns = self._template.stop_ids if self._template else frozenset()
            self._grammars = Grammars(
                self._tokenizer, vocab_size=self._vocab_size, end_ids=self._tokenizer.eos_ids | turns
            )
        return self._grammars

    def _limits(self, *, is_chat: bool) -> Limits:
        return Limits(
            context=self._context,
            vocab_size=self._vocab_size,
            has_tokenizer=self._tokenizer is not None,
            eos_ids=self._tokenizer.eos_ids if self._tokenizer else frozenset(),
            turn_ids=self._template.stop_ids if is_chat and self._template else frozenset(),
            forms=self._constraint if self._tokenizer is not None else None,
        )
