"""LangChain's OpenAI classes, unchanged, against our server."""

from collections.abc import Iterator

import pytest

from tests.serving import MODEL, Served, loader, serving

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


def test_completions(served: Served) -> None:
    model = langchain_openai.OpenAI(
        model=MODEL, base_url=f"{served.url}/v1", api_key="none", max_tokens=5, max_retries=0
    )
    assert isinstance(model.invoke("The wind"), str)
    served.idle()
