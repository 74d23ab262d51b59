"""`POST /v1/moderations`, and a server's own policies: prompts that are refused, answers that are held back.

The model judges itself (`circius.moderate.reflect`). Its questions are requests of one token like any other: they run
in the same batches as everybody's, and what they all begin with is found in the cache.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from anyio import from_thread
from fastapi import APIRouter
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from circius.base.errors import CirciusError
from circius.engine.llm import LLM
from circius.engine.outputs import CompletionOutput, RequestOutput
from circius.engine.reflection import named_logprobs, naming_requests, reflector
from circius.engine.request import Request
from circius.engine.worker import Worker
from circius.moderate.categories import NOT_MODERATED
from circius.moderate.instruction import Kind
from circius.moderate.policy import Policy
from circius.moderate.reflect import Reflector, Verdict
from circius.serve.errors import ApiError, as_api_error
from circius.serve.fields import Strict
from circius.serve.generation import generation, new_id, salt_of, unless_gone
from circius.serve.metrics import Metrics
from circius.serve.state import state_of
from circius.text.injection import TURN_MARKS

router = APIRouter()
MOST_TEXTS = 256
DEFAULT_THRESHOLD = 0.5
_TURN_MARK = re.compile("|".join(map(re.escape, TURN_MARKS)))
_AT_ONCE = 16
"""Questions of one call that are in the engine together: others want to be served too."""


class TextInput(Strict):
    type: Literal["text"]
    text: str


class ModerationFields(Strict):
    """OpenAI's fields, and three of ours. A list of texts is as many inputs, a list of parts is one."""

    input: str | Annotated[list[str] | list[TextInput], Field(min_length=1, max_length=MOST_TEXTS)]
    model: str | None = None
    categories: Literal["short", "long"] | None = None
    kind: Literal["prompt", "answer"] | None = None
    threshold: Annotated[float, Field(gt=0, le=1)] | None = None

    def texts(self) -> list[str]:
        if isinstance(self.input, str):
            return [self.input]
        parts = [part.text for part in self.input if isinstance(part, TextInput)]
        return ["\n\n".join(parts)] if parts else [text for text in self.input if isinstance(text, str)]


class Moderation:
    """What judges texts for a server, and what it does with prompts and answers of its own."""

    def __init__(
        self, llm: LLM, worker: Worker, metrics: Metrics, *, prompts: Policy | None, answers: Policy | None
    ) -> None:
        """prompts, answers: what is to happen to either; None to let all pass without a look.

        Raises:
            CirciusError: this model cannot be asked, and a policy wants it to be.
        """
        self._llm, self._worker, self._metrics = llm, worker, metrics
        self._prompts, self._answers = prompts, answers
        self._reflectors: dict[str, Reflector] = {}
        for policy in (prompts, answers):
            if policy is not None:
                self._reflector(policy.categories)

    async def verdicts(self, http: HttpRequest, texts: Sequence[str], *, categories: str, kind: Kind) -> list[Verdict]:
        """What the model thinks of each text.

        In the cache the questions are found by those of the same key only: texts of clients are in them.

        Raises:
            ApiError: it cannot be asked, or not now.
        """
        ask = partial(self._next_logprobs, salt_of(state_of(http).key_of(http), "moderation"))

        def judged() -> list[Verdict]:  # texts take their time to be encoded
            return self._reflector(categories).asking(ask).verdicts(texts, kind=kind)

        try:
            return await run_in_threadpool(judged)
        except CirciusError as error:
            raise as_api_error(error, param="input") from error

    async def check_prompts(self, http: HttpRequest, requests: Sequence[Request]) -> None:
        """Lets prompts pass or refuses them, by the policy; it is told in the log which it was.

        What is judged is the whole prompt as the model would read it: nothing that a client can fill in escapes.

        Raises:
            ApiError: a prompt is refused (400, code content_filter).
        """
        if self._prompts is None:
            return
        assert self._llm.tokenizer is not None, "a policy needs a chat template, and that has one"
        decoded = (self._llm.tokenizer.decode(request.prompt_ids) for request in requests)
        # Plain-text turn marks are the template's, as control tokens are, which the decoder leaves out.
        texts = list(dict.fromkeys(_TURN_MARK.sub("\n", text) for text in decoded))
        verdicts = await self.verdicts(http, texts, categories=self._prompts.categories, kind="prompt")
        actions = [self.note(http, "prompt", self._prompts, verdict) for verdict in verdicts]
        for action, verdict in zip(actions, verdicts, strict=True):
            if action == "refuse":
                raise ApiError(
                    f"the prompt was refused by this server's policy ({self._prompts.reason(verdict)})",
                    code="content_filter",
                )

    def screen(self, http: HttpRequest) -> "AnswerScreen | None":
        """What looks at the answers to a request before anybody sees them; None if nobody wants that."""
        return None if self._answers is None else AnswerScreen(self, http, self._answers)

    def note(self, http: HttpRequest, what: Kind, policy: Policy, verdict: Verdict) -> str:
        """Decides, counts it, and leaves it for the access log and the response's header."""
        action = policy.decide(verdict)
        self._metrics.moderated(what, action)
        if action != "allow":
            before = http.scope.get("circius.moderation")
            told = f"{what}={action} {policy.reason(verdict)}"
            http.scope["circius.moderation"] = told if before is None else f"{before}; {told}"
        return action

    def _reflector(self, categories: str) -> Reflector:
        if categories not in self._reflectors:
            self._reflectors[categories] = reflector(
                self._llm, categories, next_logprobs=partial(self._next_logprobs, b"")
            )
        return self._reflectors[categories]

    def _next_logprobs(
        self, salt: bytes, prompts: Sequence[Sequence[int]], tokens: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """Asks from a thread of the pool, and waits there."""
        requests = naming_requests(self._llm, prompts, tokens)
        found: list[list[float]] = []
        for begin in range(0, len(requests), _AT_ONCE):
            results = from_thread.run(self._results, salt, requests[begin : begin + _AT_ONCE])
            some = tokens[begin : begin + _AT_ONCE]
            found += [named_logprobs(result, own) for result, own in zip(results, some, strict=True)]
        return found

    async def _results(self, salt: bytes, requests: Sequence[Request]) -> list[RequestOutput]:
        async with generation(self._worker, requests, salt=salt, adapter=None) as own:
            return await own.results()


class AnswerScreen:
    """Holds the answers to one call against a policy."""

    def __init__(self, moderation: Moderation, http: HttpRequest, policy: Policy) -> None:
        self._moderation, self._http, self._policy = moderation, http, policy

    async def refused(self, outputs: Mapping[int, RequestOutput]) -> dict[tuple[int, int], str]:
        """What is to be shown instead of answers that must not be: by the request's place and the answer's index."""
        texts = {(place, answer.index): _said(answer) for place, output in outputs.items() for answer in output.outputs}
        asked = {key: text for key, text in texts.items() if text}
        if not asked:
            return {}
        policy = self._policy
        verdicts = await self._moderation.verdicts(
            self._http, list(asked.values()), categories=policy.categories, kind="answer"
        )
        actions = [self._moderation.note(self._http, "answer", policy, verdict) for verdict in verdicts]
        return {key: policy.refusal for key, action in zip(asked, actions, strict=True) if action == "refuse"}


@router.post("/v1/moderations", tags=["moderation"])
async def moderations(fields: ModerationFields, http: HttpRequest) -> Response:
    """Sorts texts into categories by the model's own judgement."""
    state = state_of(http)
    name = state.config.names[0] if fields.model is None else fields.model
    state.llm_named(name)
    threshold = DEFAULT_THRESHOLD if fields.threshold is None else fields.threshold

    async def judged() -> list[Verdict]:
        return await state.moderation.verdicts(
            http, fields.texts(), categories=fields.categories or "long", kind=fields.kind or "prompt"
        )

    verdicts = await unless_gone(http, judged)
    results = [_result(verdict, threshold) for verdict in verdicts]
    return JSONResponse({"id": new_id("modr"), "model": name, "results": results})


def _result(verdict: Verdict, threshold: float) -> dict[str, Any]:
    """A verdict in OpenAI's form. A text is flagged if all categories together reach the threshold; then the likeliest
    of them is true, and so is every other that reaches it alone."""
    flagged = verdict.unsafe >= threshold
    scores = {key: score for key, score in verdict.scores.items() if key != NOT_MODERATED}
    return {
        "flagged": flagged,
        "categories": {
            key: score >= threshold or (flagged and key == verdict.unsafe_category) for key, score in scores.items()
        },
        "category_scores": scores,
        "category_applied_input_types": {key: ["text"] for key in scores},
        "coverage": verdict.coverage,
        "pieces": verdict.n_pieces,
    }


def _said(answer: CompletionOutput) -> str:
    """All that an answer would show: its text, and what it would call functions with."""
    calls = [f"{call.name}: {call.arguments}" for call in answer.tool_calls]
    return "\n".join(part for part in (answer.text, *calls) if part.strip())
