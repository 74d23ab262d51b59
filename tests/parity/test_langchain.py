"""LangChain's OpenAI classes, unchanged, against our server."""

from collections.abc import Iterator
from typing import Literal

import pytest

from tests.serving import MODEL, Served, loader, serving, tool_loader

langchain_openai = pytest.importorskip("langchain_openai", reason="this parity test needs langchain-openai")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(loader(tmp_path_factory.mktemp("served"))) as own:
        yield own


def test_chat_stream_batch_and_a_schema(served: Served) -> None:
    from pydantic import BaseModel

    class Answer(BaseModel):
        is_cold: bool

    chat = langchain_openai.ChatOpenAI(
        model=MODEL, base_url=f"{served.url}/v1", api_key="none", temperature=0, max_tokens=10, max_retries=0
    )
    whole = chat.invoke([("system", "Be brief."), ("human", "What is the mistral?")])
    assert whole.usage_metadata["output_tokens"] == 10
    parts = list(chat.stream([("system", "Be brief."), ("human", "What is the mistral?")]))
    assert "".join(part.content for part in parts) == whole.content
    assert len(chat.batch(["one", "two", "three"])) == 3
    shaped = chat.with_structured_output(Answer, method="json_schema").invoke("Is it cold?", max_tokens=60)
    assert isinstance(shaped, Answer)
    served.idle()


def test_bound_tools() -> None:
    from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
    from langchain_core.tools import tool

    @tool
    def add(a: Literal[1, 2], b: Literal[3, 4]) -> int:
        """The sum of two numbers."""
        return a + b

    with serving(tool_loader()) as own:
        chat = langchain_openai.ChatOpenAI(
            model=MODEL, base_url=f"{own.url}/v1", api_key="none", seed=1, max_tokens=200, max_retries=0
        )
        bound = chat.bind_tools([add], tool_choice="any", strict=True)
        asked = [HumanMessage("One and three?")]
        reply = bound.invoke(asked)
        assert reply.response_metadata["finish_reason"] == "tool_calls"
        assert reply.tool_calls
        results = [add.invoke(call) for call in reply.tool_calls]
        assert all(isinstance(result, ToolMessage) and result.content in ("4", "5", "6") for result in results)
        assert (
            chat.bind_tools([add]).invoke([*asked, reply, *results], max_tokens=3).usage_metadata["output_tokens"] == 3
        )
        joined = None
        for chunk in bound.stream(asked):
            assert isinstance(chunk, AIMessageChunk)
            joined = chunk if joined is None else joined + chunk
        assert joined is not None
        assert [(call["name"], call["args"]) for call in joined.tool_calls] == [
            (call["name"], call["args"]) for call in reply.tool_calls
        ]
        shaped = chat.with_structured_output(add.args_schema, method="function_calling").invoke(asked)
        assert shaped.a in (1, 2)
        own.idle()


def test_completions(served: Served) -> None:
    model = langchain_openai.OpenAI(
        model=MODEL, base_url=f"{served.url}/v1", api_key="none", max_tokens=5, max_retries=0
    )
    assert isinstance(model.invoke("The wind"), str)
    served.idle()
