"""Files of requests in OpenAI's batch format: many at once through one engine, and every line exactly once.

What has been answered is kept beside the output in `NAME.partial` as it comes, one line each. After a kill the next run
takes these lines over and goes on; the output appears under its own name when it is whole, in the order of the input.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError

from circius.base.errors import CirciusError, InvalidInputError, StorageError
from circius.engine.engine import Engine
from circius.engine.job import Job
from circius.engine.llm import LLM
from circius.engine.outputs import RequestOutput
from circius.engine.request import Request
from circius.serve import chat, completions
from circius.serve.chat import ChatFields
from circius.serve.completions import CompletionFields
from circius.serve.errors import ApiError, as_api_error
from circius.serve.generation import new_id

URLS = ("/v1/chat/completions", "/v1/completions")
_OPEN_PER_STREAM = 4
"""Requests handed to the engine for each stream that it computes: enough to keep it busy, few enough to hold."""
MOST_LINE_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of the input: its request, or why it is none."""

    number: int
    custom_id: str
    url: str = ""
    body: dict[str, Any] | None = None
    error: ApiError | None = None


def run_batch(
    llm: LLM,
    engine: Engine,
    source: Path,
    target: Path,
    *,
    names: tuple[str, ...],
    force: bool = False,
    on_progress: Callable[[int, int], object] = lambda done, total: None,
) -> dict[str, int]:
    """Answers every line of `source` into `target`; how many were answered, failed, and taken over from a run before.

    names: what requests may call the model.

    Raises:
        InvalidInputError: the target is there already, the input has a line without an id or two with the same one,
            or what is beside the target belongs to another input.
        StorageError: another run is writing the same target, or the disk is full.
    """
    if target.exists() and not force:
        raise InvalidInputError(f"{target} is there already: give another name, or --force to replace it")
    lines = list(read_lines(source))
    with _Partial(target, source, llm, names) as partial:
        done = set(partial.offsets)
        counts = {"answered": 0, "failed": 0, "taken_over": len(done)}
        waiting = (line for line in lines if line.custom_id not in done)
        on_progress(len(done), len(lines))

        def ended(line: Line, body: dict[str, Any]) -> None:
            partial.write(line.custom_id, body)
            counts["failed" if body["error"] or body["response"]["status_code"] != 200 else "answered"] += 1
            on_progress(sum(counts.values()), len(lines))

        _answer_all(llm, engine, waiting, names, ended)
        partial.finish([line.custom_id for line in lines])
    return counts


def read_lines(source: Path) -> Iterator[Line]:
    """The lines of a batch file; one that is no request has its error with it.

    Raises:
        InvalidInputError: a line without a custom_id, or with that of another: its answer could not be told.
    """
    seen: dict[str, int] = {}
    with source.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if not raw.strip():
                continue
            if len(raw) > MOST_LINE_BYTES:
                raise InvalidInputError(f"{source}:{number}: a line may have {MOST_LINE_BYTES} bytes, got {len(raw)}")
            line = _parsed(source, number, raw)
            if line.custom_id in seen:
                raise InvalidInputError(
                    f"{source}:{number}: custom_id {line.custom_id!r} stands in line {seen[line.custom_id]} already"
                )
            seen[line.custom_id] = number
            yield line


def _parsed(source: Path, number: int, raw: bytes) -> Line:
    try:
        found = json.loads(raw)
    except ValueError as error:
        raise InvalidInputError(f"{source}:{number} is not JSON: {error}") from error
    custom_id = found.get("custom_id") if isinstance(found, dict) else None
    if not isinstance(custom_id, str) or not custom_id:
        raise InvalidInputError(f"{source}:{number} needs a custom_id, a text, to tell its answer by")
    body, url = found.get("body"), found.get("url")
    problem = None
    if found.get("method", "POST") != "POST":
        problem = ApiError(f"method must be POST, got {found['method']!r}", param="method")
    elif url not in URLS:
        problem = ApiError(f"url must be one of {', '.join(URLS)}, got {url!r}", param="url")
    elif not isinstance(body, dict):
        problem = ApiError("body must be an object", param="body")
    elif unknown := sorted(set(found) - {"custom_id", "method", "url", "body"}):
        problem = ApiError(f"{unknown[0]} is not known here, and nothing is ignored: leave it out", param=unknown[0])
    if problem is not None or not isinstance(body, dict):
        return Line(number=number, custom_id=custom_id, error=problem)
    return Line(number=number, custom_id=custom_id, url=str(url), body=body)


def _answer_all(
    llm: LLM,
    engine: Engine,
    lines: Iterator[Line],
    names: tuple[str, ...],
    ended: Callable[[Line, dict[str, Any]], None],
) -> None:
    most = _OPEN_PER_STREAM * engine.limits.max_streams
    is_more = True
    while True:
        while is_more and len(engine.jobs) < most:
            line = next(lines, None)
            if line is None:
                is_more = False
                break
            _begin(llm, engine, line, names, ended)
        if not engine.step() and not is_more:
            return


def _begin(
    llm: LLM, engine: Engine, line: Line, names: tuple[str, ...], ended: Callable[[Line, dict[str, Any]], None]
) -> None:
    try:
        if line.error is not None:
            raise line.error
        requests, reply = _requests(llm, line, names)
        for request in requests:
            engine.scheduler.check_fits(request.n_cache_tokens)
    except (ApiError, CirciusError) as error:
        known = error if isinstance(error, ApiError) else as_api_error(error)
        ended(line, _answer(line, known.status, known.body))
        return
    outputs: dict[int, RequestOutput | ApiError] = {}

    def one_ended(place: int, job: Job) -> None:
        try:
            outputs[place] = job.output()
        except CirciusError as error:
            outputs[place] = as_api_error(error)
        if len(outputs) < len(requests):
            return
        failed = next((each for each in outputs.values() if isinstance(each, ApiError)), None)
        if failed is not None:
            ended(line, _answer(line, failed.status, failed.body))
            return
        whole = [each for _, each in sorted(outputs.items()) if not isinstance(each, ApiError)]
        ended(line, _answer(line, 200, reply(whole)))

    for place, request in enumerate(requests):
        engine.submit(request, ended=partial(one_ended, place))


def _requests(
    llm: LLM, line: Line, names: tuple[str, ...]
) -> tuple[list[Request], Callable[[list[RequestOutput]], dict[str, Any]]]:
    """The requests that a line asks for, and what makes one body of their results."""
    assert line.body is not None
    try:
        if line.url == "/v1/chat/completions":
            chat_fields = ChatFields.model_validate(line.body)
            _check_fields(chat_fields, names)
            request = chat.request_of(llm, chat_fields)
            chat_reply = chat.Reply(llm, chat_fields, new_id("chatcmpl"))
            return [request], lambda outputs: chat_reply.whole(outputs[0])
        fields = CompletionFields.model_validate(line.body)
        _check_fields(fields, names)
        requests = [completions.request_of(llm, fields, prompt) for prompt in fields.prompts()]
        return requests, completions.Reply(llm, fields, new_id("cmpl")).whole
    except ValidationError as error:
        first = error.errors()[0]
        param = ".".join(f"{part}" for part in first["loc"]) or None
        raise ApiError(f"{param or 'the body'}: {first['msg']}", param=param) from error


def _check_fields(fields: ChatFields | CompletionFields, names: tuple[str, ...]) -> None:
    if fields.stream:
        raise ApiError("stream: a batch has nobody to stream to; leave it out", param="stream")
    if fields.model not in names:
        raise ApiError(
            f"there is no model {fields.model!r} here: use {', '.join(names)}",
            status=404, param="model", code="model_not_found",
        )  # fmt: skip
    fields.check()


def _answer(line: Line, status: int, body: dict[str, Any]) -> dict[str, Any]:
    """A line of the output, in OpenAI's form."""
    return {
        "id": new_id("batch_req"),
        "custom_id": line.custom_id,
        "response": {"status_code": status, "request_id": new_id("req"), "body": body},
        "error": None,
    }


class _Partial:
    """The answers so far, beside where they will be: a header that says whose they are, then a line for each."""

    def __init__(self, target: Path, source: Path, llm: LLM, names: tuple[str, ...]) -> None:
        self._target = target
        self._path = target.with_name(f"{target.name}.partial")
        shape = {name: repr(value) for name, value in asdict(llm.config).items()}
        belongs = {"input_sha256": _digest(source), "models": list(names), "shape": shape, "context": llm.context}
        self._header = {"circius_batch": belongs}
        self._file: BinaryIO | None = None
        self.offsets: dict[str, tuple[int, int]] = {}
        """Where the answer to each custom_id stands: from which byte, and how many."""

    def __enter__(self) -> "_Partial":
        self._file = self._path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise StorageError(f"another run is writing {self._target}") from None
        try:
            self._take_over()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._file is not None
        self._file.close()

    def _take_over(self) -> None:
        """Reads what a run before has left, and cuts off a line that it did not finish."""
        assert self._file is not None
        self._file.seek(0)
        whole = 0
        for number, raw in enumerate(self._file):
            if not raw.endswith(b"\n"):
                break
            if number == 0:
                if _object(raw) != self._header:
                    raise InvalidInputError(
                        f"{self._path} holds answers to another input, or of another model: finish that run, or "
                        "delete the file"
                    )
            else:
                self.offsets[json.loads(raw)["custom_id"]] = (whole, len(raw))
            whole += len(raw)
        self._file.truncate(whole)
        self._file.seek(0, os.SEEK_END)
        if whole == 0:
            self._append(self._header)

    def _append(self, body: dict[str, Any]) -> tuple[int, int]:
        assert self._file is not None
        raw = json.dumps(body, ensure_ascii=False).encode() + b"\n"
        begin = self._file.seek(0, os.SEEK_END)
        self._file.write(raw)
        self._file.flush()  # it is the system's now, and outlives this process
        return begin, len(raw)

    def write(self, custom_id: str, body: dict[str, Any]) -> None:
        assert custom_id not in self.offsets
        self.offsets[custom_id] = self._append(body)

    def finish(self, order: list[str]) -> None:
        """Writes the output in this order under a temporary name, and renames it."""
        assert self._file is not None
        temporary = self._target.with_name(f".{self._target.name}.tmp-{os.getpid()}")
        try:
            with temporary.open("wb") as file:
                for custom_id in order:
                    begin, length = self.offsets[custom_id]
                    self._file.seek(begin)
                    file.write(self._file.read(length))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._target)
        finally:
            temporary.unlink(missing_ok=True)
        self._path.unlink()


def _object(raw: bytes) -> object:
    try:
        return json.loads(raw)
    except ValueError:
        return None  # not of our making


def _digest(source: Path) -> str:
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
