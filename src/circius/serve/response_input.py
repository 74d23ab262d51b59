"""What `/v1/responses` takes: a text, or items of a conversation, and the same question in the form of a chat."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from circius.serve.chat import MOST_MESSAGES, ChatFields, ChatMessage
from circius.serve.errors import ApiError
from circius.serve.fields import JsonSchema, ResponseFormat, Strict
from circius.serve.tool_fields import (
    CalledFunction,
    CallField,
    FunctionDefinition,
    NamedFunction,
    NamedTool,
    ToolDefinition,
)
from circius.text.tools import MOST_TOOLS


class InputText(Strict):
    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class InputMessage(Strict):
    """A message, or an answer of an earlier call as it came."""

    type: Literal["message"] | None = None
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[InputText], Field(min_length=1)]
    id: str | None = None
    status: str | None = None

    def join(self, messages: list[ChatMessage]) -> None:
        """Adds it to the messages of a chat."""
        text = _text_of(self.content)
        last = messages[-1] if messages else None
        if self.role == "assistant" and last is not None and last.tool_calls:  # words behind the calls of one answer
            last.content = "\n\n".join(part for part in (last.content, text) if part and isinstance(part, str))
        else:
            messages.append(ChatMessage(role=self.role, content=text))


class CallItem(Strict):
    """A call of an earlier answer, as it came."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: str | None = None

    def join(self, messages: list[ChatMessage]) -> None:
        """Adds it to the messages of a chat: what one answer said and called is one message there."""
        if not messages or messages[-1].role != "assistant":
            messages.append(ChatMessage(role="assistant"))
        call = CallField(id=self.call_id, function=CalledFunction(name=self.name, arguments=self.arguments))
        messages[-1].tool_calls = [*(messages[-1].tool_calls or []), call]


class ResultItem(Strict):
    """What a function gave back."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | list[InputText]
    id: str | None = None
    status: str | None = None

    def join(self, messages: list[ChatMessage]) -> None:
        """Adds it to the messages of a chat."""
        messages.append(ChatMessage(role="tool", tool_call_id=self.call_id, content=_text_of(self.output)))


def _text_of(content: str | list[InputText]) -> str:
    return content if isinstance(content, str) else "\n\n".join(part.text for part in content)


def _kind(item: Any) -> str:
    kind = item.get("type") if isinstance(item, dict) else getattr(item, "type", None)
    return "message" if kind is None else str(kind)


def _form(value: Any) -> str:
    return "items" if isinstance(value, list) else "text"


Item = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[CallItem, Tag("function_call")]
    | Annotated[ResultItem, Tag("function_call_output")],
    Discriminator(
        _kind,
        custom_error_type="item_type",
        custom_error_message="the type of an item must be message, function_call or function_call_output",
    ),
]
Items = Annotated[list[Item], Field(min_length=1, max_length=MOST_MESSAGES)]
Input = Annotated[Annotated[str, Tag("text")] | Annotated[Items, Tag("items")], Discriminator(_form)]


class TextFormat(Strict):
    """Here a schema's fields stand beside its type."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class TextOptions(Strict):
    format: TextFormat | None = None


class FunctionTool(Strict):
    """Here a function's fields stand beside its type."""

    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def as_definition(self) -> ToolDefinition:
        own = {name: getattr(self, name) for name in FunctionDefinition.model_fields}
        return ToolDefinition(type="function", function=FunctionDefinition(**own))


class NamedFunctionTool(NamedFunction):
    type: Literal["function"]


class ResponseFields(Strict):
    model: str
    input: Input
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    stream: bool | None = None
    text: TextOptions | None = None
    store: Literal[False] | None = None
    background: Literal[False] | None = None
    truncation: Literal["disabled"] | None = None
    tools: Annotated[list[FunctionTool], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedFunctionTool | None = None
    parallel_tool_calls: bool | None = None
    safe_prompt: bool | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None

    def as_chat(self) -> ChatFields:
        """The same question in the older form.

        Raises:
            ApiError: a format that is none.
        """
        messages = [ChatMessage(role="system", content=self.instructions)] if self.instructions else []
        if isinstance(self.input, str):
            messages.append(ChatMessage(role="user", content=self.input))
        else:
            for item in self.input:
                item.join(messages)
        choice = self.tool_choice
        return ChatFields(
            model=self.model,
            messages=messages,
            max_completion_tokens=self.max_output_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            response_format=self._format(),
            tools=[tool.as_definition() for tool in self.tools] if self.tools else None,
            tool_choice=NamedTool(type="function", function=NamedFunction(name=choice.name))
            if isinstance(choice, NamedFunctionTool)
            else choice,
            parallel_tool_calls=self.parallel_tool_calls,
            safe_prompt=self.safe_prompt,
        )

    def _format(self) -> ResponseFormat | None:
        form = self.text.format if self.text else None
        if form is None:
            return None
        if (form.type == "json_schema") != (form.schema_ is not None):
            raise ApiError("text.format needs a schema exactly if its type is json_schema", param="text.format")
        schema = None if form.schema_ is None else JsonSchema(name=form.name, schema=form.schema_)
        return ResponseFormat(type=form.type, json_schema=schema)
