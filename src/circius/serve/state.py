"""What all routes of a server share: the model, the engine's thread, and how far the start has come."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from starlette.requests import Request as HttpRequest

from circius.engine.llm import LLM
from circius.engine.outputs import RequestOutput
from circius.engine.worker import Worker
from circius.model import Adapter
from circius.serve.config import ServeConfig
from circius.serve.errors import ApiError
from circius.serve.metrics import Metrics

if TYPE_CHECKING:
    from circius.serve.moderation import Moderation


class State:
    """`llm` and `worker` are there when the model has been loaded; before that, routes that need them answer 503."""

    def __init__(self, config: ServeConfig, metrics: Metrics) -> None:
        self.config, self.metrics = config, metrics
        self.is_draining = False
        self.error: Exception | None = None
        """Why the model could not be loaded."""
        self.end_server: Callable[[], None] = lambda: None
        self.adapters: dict[str, Adapter] = {}
        """By the names that requests may use for them."""
        self._llm: LLM | None = None
        self._worker: Worker | None = None
        self._moderation: Moderation | None = None

    def failed(self, error: Exception) -> None:
        """Notes that there will be no model, and ends the server."""
        self.error = error
        self.end_server()

    def loaded(self, llm: LLM, worker: Worker, moderation: "Moderation") -> None:
        self._worker, self._moderation = worker, moderation
        self._llm = llm

    @property
    def is_ready(self) -> bool:
        """Whether a request would be taken on now."""
        return self._worker is not None and self._worker.is_alive and not self.is_draining

    @property
    def is_healthy(self) -> bool:
        """Whether the model is loaded and the engine's thread lives."""
        return self._worker is not None and self._worker.is_alive

    @property
    def llm(self) -> LLM:
        """
        Raises:
            ApiError: it is not loaded yet.
        """
        if self._llm is None:
            raise ApiError("the model is still loading", status=503, code="loading", headers={"Retry-After": "5"})
        return self._llm

    @property
    def worker(self) -> Worker:
        """
        Raises:
            ApiError: the model is not loaded yet, or the engine has died.
        """
        assert self.llm
        assert self._worker is not None
        if not self._worker.is_alive and not self.is_draining:
            raise ApiError("the engine has died; its log says why", status=500, code="engine_dead")
        return self._worker

    @property
    def moderation(self) -> "Moderation":
        """
        Raises:
            ApiError: the model is not loaded yet.
        """
        assert self.llm
        assert self._moderation is not None
        return self._moderation

    @property
    def names(self) -> list[str]:
        """What requests may name: the model, and its adapters."""
        return [*self.config.names, *self.adapters]

    def adapter_named(self, name: str) -> Adapter | None:
        """The adapter that a request names, if it is not the model itself."""
        return self.adapters.get(name)

    def llm_named(self, name: str) -> LLM:
        """The model that a request names, or of which it names an adapter.

        Raises:
            ApiError: it is another one (404), or not loaded yet (503).
        """
        if name not in self.names:
            raise ApiError(
                f"there is no model {name!r} here: use {', '.join(self.names)}",
                status=404,
                param="model",
                code="model_not_found",
            )
        return self.llm

    def key_of(self, http: HttpRequest) -> str | None:
        """The API key with which a request came in."""
        return cast("str | None", http.scope.get("circius.key"))

    def note_usage(self, http: HttpRequest, outputs: Sequence[RequestOutput]) -> None:
        """Leaves the numbers of tokens for the access log."""
        http.scope["circius.usage"] = n_tokens_of(outputs)


def n_tokens_of(outputs: Sequence[RequestOutput]) -> tuple[int, int]:
    """The tokens of the prompts, and of all answers."""
    return (
        sum(len(output.prompt_token_ids) for output in outputs),
        sum(len(answer.token_ids) for output in outputs for answer in output.outputs),
    )


def state_of(http: HttpRequest) -> State:
    return cast(State, http.app.state.circius)
