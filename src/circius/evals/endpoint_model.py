"""Any server that speaks OpenAI's protocol of completions, as the model of a benchmark. No torch here."""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from circius.base.errors import InvalidInputError
from circius.evals.item import Choices, ChoicesAnswer, Passage, PassageAnswer, Sample, Text, TextAnswer
from circius.evals.json_client import JsonClient, ServerError
from circius.evals.model import OnAnswered, Tokens, unheard
from circius.evals.scoring.code import cut

Job = TypeVar("Job")
Done = TypeVar("Done")

_NO_ECHO = (
    "benchmarks with choices need a server that gives the log-probabilities of a prompt (echo with logprobs), as "
    "`circius serve` and vLLM do; those that ask for texts need nothing of the kind"
)


class EndpointModel:
    """A model behind a server, asked through `POST /completions` only.

    Likelihoods come from prompts that are echoed with the log-probabilities of their tokens; the continuation's tokens
    are those that begin where it begins, or later. Whether a prompt starts with BOS is the server's business.
    """

    def __init__(self, client: JsonClient, name: str, *, concurrency: int = 8) -> None:
        """name: what the server calls the model. concurrency: requests that may be open at once."""
        if concurrency < 1:
            raise InvalidInputError(f"concurrency must be 1 or more, got {concurrency}")
        self._client, self._name, self.n_at_once = client, name, concurrency

    @property
    def tokens(self) -> Tokens | None:
        return None

    def describe(self) -> Mapping[str, Any]:
        return {"kind": "endpoint", "name": self._name, "url": self._client.base}

    def loglikelihoods(self, asks: Sequence[Choices], on_answered: OnAnswered = unheard) -> list[ChoicesAnswer]:
        """The likelihoods of all choices, one request each; equal ones are asked once.

        Raises:
            ServerError: the server does not echo log-probabilities, or cannot be reached.
        """
        pairs = dict.fromkeys(pair for ask in asks for pair in _pairs_of(ask))
        done = dict(zip(pairs, self._map(self._echoed, list(pairs), on_answered), strict=True))
        return [_answer(ask, done) for ask in asks]

    def texts(self, asks: Sequence[Text], on_answered: OnAnswered = unheard) -> list[TextAnswer]:
        """The answers to all prompts; each sample is a request with a seed of its own."""
        jobs = [(ask, index) for ask in asks for index in range(ask.n)]
        samples = iter(self._map(self._written, jobs, on_answered))
        return [TextAnswer(samples=tuple(next(samples) for _ in range(ask.n))) for ask in asks]

    def passages(self, asks: Sequence[Passage], on_answered: OnAnswered = unheard) -> list[PassageAnswer]:
        raise InvalidInputError(
            "perplexity is counted by tokens that only a model in this process shows: no --endpoint"
        )

    def _map(self, ask: Callable[[Job], Done], jobs: Sequence[Job], on_answered: OnAnswered) -> list[Done]:
        """The answers in the order of the jobs. The first error ends it: what has not begun is not asked any more."""
        done = []
        with ThreadPoolExecutor(self.n_at_once) as pool:
            try:
                for n_done, each in enumerate(pool.map(ask, jobs), start=1):
                    done.append(each)
                    on_answered(n_done / len(jobs))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return done

    def _post(self, **body: Any) -> dict[str, Any]:
        reply = self._client.post("completions", {"model": self._name, **body})
        choices = reply.get("choices")
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
            raise ServerError(f"{self._client.base}/completions answered no single choice: {str(reply)[:200]}")
        return choices[0]

    def _echoed(self, pair: tuple[str, str]) -> "_Echo":
        context, continuation = pair
        whole = context + continuation
        first = len(context.rstrip())
        if not first:
            raise InvalidInputError(
                f"a server tells no likelihood of a text's first token: {whole!r:.60} needs a context"
            )
        # Many servers refuse to write nothing at all, so one token is written, and not looked at.
        choice = self._post(prompt=whole, max_tokens=1, temperature=0, echo=True, logprobs=1)
        own = [token for token in self._tokens_of(choice) if first <= token.offset < len(whole)]
        if not own or any(token.logprob is None for token in own):
            raise ServerError(f"{self._client.base}: no log-probabilities for a prompt came back; {_NO_ECHO}")
        return _Echo(sum(token.logprob or 0.0 for token in own), all(token.is_likeliest for token in own))

    def _tokens_of(self, choice: Mapping[str, Any]) -> list["_Token"]:
        try:
            tokens = list(_tokens_of(choice))
        except (TypeError, ValueError, AttributeError) as error:
            raise ServerError(
                f"{self._client.base}/completions answered log-probabilities that cannot be read ({error}): "
                f"{str(choice.get('logprobs'))[:200]}"
            ) from error
        if not all(token.logprob is None or math.isfinite(token.logprob) for token in tokens):
            raise ServerError(f"{self._client.base}/completions answered a log-probability that is not finite")
        return tokens

    def _written(self, job: tuple[Text, int]) -> Sample:
        ask, index = job
        body: dict[str, Any] = {
            "prompt": ask.prompt,
            "max_tokens": ask.max_tokens,
            "temperature": ask.temperature,
            "top_p": ask.top_p,
        }
        if ask.stop:
            body["stop"] = list(ask.stop)
        if not ask.is_greedy:
            body |= {"seed": _seed(ask.seed, index), "logprobs": 0}
        choice = self._post(**body)
        logprobs = [token.logprob for token in self._tokens_of(choice)]
        known = [logprob for logprob in logprobs if logprob is not None]
        return Sample(
            text=cut(str(choice.get("text") or ""), ask.stop),
            logprob=sum(known) if known and len(known) == len(logprobs) else None,
            finish=str(choice.get("finish_reason") or "stop"),
        )


@dataclass(frozen=True)
class _Echo:
    logprob: float
    is_greedy: bool


@dataclass(frozen=True)
class _Token:
    offset: int
    logprob: float | None
    is_likeliest: bool


def _tokens_of(choice: Mapping[str, Any]) -> Iterator[_Token]:
    """The tokens of OpenAI's first form of log-probabilities; none where the server gave none."""
    lists = choice.get("logprobs") or {}
    logprobs = lists.get("token_logprobs") or []
    offsets = lists.get("text_offset") or [0] * len(logprobs)
    tops = lists.get("top_logprobs") or [None] * len(logprobs)
    for offset, logprob, top in zip(offsets, logprobs, tops, strict=True):
        likeliest = max(top.values()) if top else None
        yield _Token(int(offset), logprob, logprob is not None and likeliest is not None and logprob >= likeliest)


def _pairs_of(ask: Choices) -> Iterator[tuple[str, str]]:
    yield from zip(ask.contexts, ask.continuations, strict=True)
    if ask.unconditional is not None:
        yield from ((ask.unconditional, own) for own in ask.continuations)


def _answer(ask: Choices, done: Mapping[tuple[str, str], _Echo]) -> ChoicesAnswer:
    own = [done[pair] for pair in zip(ask.contexts, ask.continuations, strict=True)]
    without = None
    if ask.unconditional is not None:
        without = tuple(done[ask.unconditional, continuation].logprob for continuation in ask.continuations)
    return ChoicesAnswer(
        logprobs=tuple(echo.logprob for echo in own),
        is_greedy=tuple(echo.is_greedy for echo in own),
        unconditional=without,
    )


def _seed(seed: int | None, index: int) -> int:
    """A seed for one sample, small enough for every server.

    >>> _seed(1, 0) == _seed(1, 0), _seed(1, 0) == _seed(1, 1)
    (True, False)
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{index}".encode()).digest()[:4], "big") >> 1
