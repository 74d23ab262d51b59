"""`POST /v1/embeddings`: a vector for each text, of the model's own hidden states."""

import asyncio
import base64
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from circius.base.errors import CirciusError
from circius.engine.embed import Embedder, Pooling
from circius.engine.llm import LLM
from circius.engine.params import SamplingParams
from circius.serve.completions import MOST_PROMPTS, Ids
from circius.serve.errors import ApiError, as_api_error
from circius.serve.fields import Strict
from circius.serve.generation import unless_gone
from circius.serve.state import State, state_of

router = APIRouter()


class EmbeddingFields(Strict):
    """OpenAI's, and `pooling`: the mean of all tokens' states, or the last token's."""

    model: str
    input: str | Ids | Annotated[list[str] | list[Ids], Field(min_length=1, max_length=MOST_PROMPTS)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    pooling: Pooling | None = None
    user: str | None = None

    def texts(self) -> list[str | list[int]]:
        given: Any = self.input
        return [given] if isinstance(given, str) or isinstance(given[0], int) else list(given)


@router.post("/v1/embeddings", tags=["embeddings"])
async def embeddings(fields: EmbeddingFields, http: HttpRequest) -> Response:
    """Vectors of length 1. The model was made to write, not for this: it serves for rough likeness."""
    state = state_of(http)
    llm = state.llm_named(fields.model)
    if fields.dimensions not in (None, llm.config.dim):
        raise ApiError(f"dimensions: vectors of this model have {llm.config.dim} numbers", param="dimensions")
    texts = await run_in_threadpool(lambda: [_ids(llm, text) for text in fields.texts()])

    async def vectors() -> list[Any]:
        return [await _vector(state, llm, ids, fields) for ids in texts]

    n_tokens = sum(map(len, texts))
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(vector, fields)}
        for index, vector in enumerate(await unless_gone(http, vectors))
    ]
    usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
    return JSONResponse({"object": "list", "data": data, "model": fields.model, "usage": usage})


def _ids(llm: LLM, text: str | list[int]) -> list[int]:
    try:
        return list(llm.asker.completion(text, SamplingParams(max_tokens=1)).prompt_ids)
    except CirciusError as error:
        raise as_api_error(error, param="input") from error


async def _vector(state: State, llm: LLM, ids: list[int], fields: EmbeddingFields) -> Any:
    """A chunk between two steps of the engine, until the text is read."""
    embedder = Embedder(
        llm.model, ids, pooling=fields.pooling or "mean", adapter=state.adapter_named(fields.model),
        chunk_size=state.worker.engine.limits.mixed_chunk_size,
    )  # fmt: skip
    while not embedder.is_done:
        await asyncio.wrap_future(state.worker.call(lambda _: embedder.read_chunk()))
    return embedder.vector().numpy()


def _encoded(vector: Any, fields: EmbeddingFields) -> Any:
    if fields.encoding_format == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return vector.tolist()
