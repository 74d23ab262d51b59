"""What the engine does besides giving everybody what they would get alone: errors, limits, memory, salts."""

from dataclasses import replace

import pytest
import torch

from circius.base.errors import CirciusError, InvalidInputError
from circius.engine.engine import Engine
from circius.engine.engine_limits import EngineLimits
from circius.engine.job import Job
from circius.engine.memory_plan import plan_memory, weight_bytes
from circius.engine.params import SamplingParams
from circius.engine.request import Limits, Request, make_request
from circius.engine.stream import most_pages
from circius.engine.worker import BusyError, Event, JobEnd, StoppingError, Ticket, Token, Worker
from circius.model import Transformer
from tests.unit.engine.tiny import tiny_model


def _request(n_prompt: int = 5, **params: object) -> Request:
    limits = Limits(context=4000, vocab_size=61, has_tokenizer=False)
    return make_request([(7 * i) % 61 for i in range(n_prompt)], SamplingParams(**params), limits)  # type: ignore[arg-type]


def _engine(window: int | None = None, **limits: int | bool) -> Engine:
    own = EngineLimits(**{"cache_tokens": 64 * 40, "chunk_size": 64, "mixed_chunk_size": 32, **limits})  # type: ignore[arg-type]
    return Engine(tiny_model(window=window), limits=own)


def _run(engine: Engine) -> None:
    while engine.step():
        engine.check()


class Stubborn:
    """A form that allows everything, for a while."""

    def __init__(self, n_tokens: int) -> None:
        self.n_left = n_tokens

    def allowed(self) -> bytes:
        return b"\xff" * 8

    def accept(self, token: int) -> None:
        self.n_left -= 1
        if self.n_left < 0:
            raise CirciusError("the form has come to nothing")


@pytest.mark.parametrize("n_tokens", [0, 3])
@pytest.mark.parametrize("n", [1, 3])
def test_a_form_that_breaks_ends_its_own_job_only(n_tokens: int, n: int) -> None:
    engine = _engine()
    broken = engine.submit(replace(_request(n=n, seed=1), constrain=lambda: Stubborn(n_tokens)))
    other = engine.submit(_request(temperature=0))
    _run(engine)
    with pytest.raises(CirciusError, match="come to nothing"):
        broken.output()
    assert other.output().finished
    assert engine.counts.n_ended == {"error": n, "length": 1}


def test_a_forward_that_fails_ends_those_who_took_part(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _engine()
    jobs = [engine.submit(_request(temperature=0)) for _ in range(3)]
    engine.step()

    def fails(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("no memory")

    with monkeypatch.context() as patched:
        patched.setattr(Transformer, "forward", fails)
        engine.step()
    engine.check()
    for job in jobs:
        with pytest.raises(CirciusError, match="RuntimeError: no memory"):
            job.output()
    again = engine.submit(_request(temperature=0))
    _run(engine)
    assert again.output().finished


def test_one_model_s_nan_is_one_job_s_error() -> None:
    engine = _engine()
    engine.model.model.embed_tokens.weight.data[50] = torch.nan
    bad = engine.submit(replace(_request(), prompt_ids=[3, 50]))
    good = engine.submit(_request(temperature=0, logit_bias={50: -100}))
    _run(engine)
    with pytest.raises(CirciusError, match="not finite"):
        bad.output()
    assert good.output().finished


def test_a_window_bounds_the_pages_of_a_long_answer() -> None:
    engine = _engine(window=100)
    job = engine.submit(_request(200, temperature=0, max_tokens=1500))
    most = 0
    while engine.step():
        most = max(most, engine.pool.n_held)
    assert job.output().timings.completion_tokens == 1500
    assert most <= most_pages(1700, 100, 64) == 4


def test_what_can_never_fit_is_refused_when_it_comes() -> None:
    engine = _engine(cache_tokens=64 * 4)
    with pytest.raises(InvalidInputError, match="ask for fewer tokens"):
        engine.submit(_request(200, max_tokens=100))
    assert not engine.jobs
    engine.check()


def test_another_salt_finds_nothing() -> None:
    engine = _engine()
    found = []
    for salt in (b"a", b"a", b"b"):
        job = engine.submit(_request(200, temperature=0, max_tokens=1), salt=salt)
        _run(engine)
        found.append(job.output().timings.cached_tokens)
    assert found == [0, 192, 0]


def test_without_a_prefix_cache_nothing_is_found_but_siblings_share() -> None:
    engine = _engine(shares_prefixes=False)
    for _ in range(2):
        job = engine.submit(_request(200, n=3, max_tokens=2))
        _run(engine)
        assert job.output().timings.cached_tokens == 0
    assert engine.counts.n_steps < 12, "siblings do not read the prompt again"


def test_a_plan_fits_what_it_was_given() -> None:
    model = tiny_model(window=100)
    plan = plan_memory(model, context=1000, max_streams=4, chunk_size=64, max_bytes=100 << 20)
    assert plan.weights == weight_bytes(model)
    assert plan.weights + plan.scratch + plan.cache <= plan.limit
    assert plan.stream_tokens == 64 * most_pages(1000, 100, 64)
    assert plan.full_streams == 8
    assert "8 streams at once" in plan.lines()[1]
    with pytest.raises(InvalidInputError, match="smaller --context"):
        plan_memory(model, context=1000, max_streams=4, chunk_size=64, max_bytes=plan.weights + plan.scratch + 1000)
    with pytest.raises(InvalidInputError, match="smaller --cache-tokens"):
        plan_memory(model, context=1000, max_streams=4, chunk_size=64, max_bytes=10 << 20, cache_tokens=10**6)


def _collect(events: list[Event]) -> "tuple[list[int], Job | None]":
    tokens = [event.token for event in events if isinstance(event, Token)]
    ends = [event.job for event in events if isinstance(event, JobEnd)]
    return tokens, ends[0] if ends else None


def test_a_worker_delivers_every_token_and_one_end() -> None:
    seen: dict[Ticket, list[Event]] = {}

    def wake(events: list[tuple[Ticket, Event]]) -> None:
        for ticket, event in events:
            seen.setdefault(ticket, []).append(event)

    worker = Worker(_engine(), wake=wake, max_open=3)
    worker.start()
    tickets = [worker.submit(_request(temperature=0, max_tokens=9), None) for _ in range(3)]
    with pytest.raises(BusyError, match="no more than 3"):
        worker.submit(_request(), None)
    worker.cancel(tickets[1])
    assert worker.stop(timeout_s=30)
    with pytest.raises(StoppingError):
        worker.submit(_request(), None)
    assert isinstance(worker.call(lambda engine: engine).exception(), StoppingError)
    for ticket in (tickets[0], tickets[2]):
        tokens, job = _collect(seen[ticket])
        assert job is not None
        assert tokens == job.output().outputs[0].token_ids
        assert sum(isinstance(event, JobEnd) for event in seen[ticket]) == 1
    assert _collect(seen[tickets[1]])[1] is not None


def test_a_request_that_cannot_begin_ends_nobody_else() -> None:
    seen: list[tuple[Ticket, Event]] = []
    worker = Worker(_engine(), wake=seen.extend, max_open=3)
    worker.start()

    def breaks() -> Stubborn:
        raise RuntimeError("no such form")

    broken = worker.submit(replace(_request(), constrain=breaks), None)
    whole = worker.submit(_request(temperature=0), None)
    assert worker.stop(timeout_s=30)
    ends = {ticket: event.job for ticket, event in seen if isinstance(event, JobEnd)}
    with pytest.raises(CirciusError, match="no such form"):
        ends[broken].output()
    assert ends[whole].output().finished


def test_stopping_aborts_what_does_not_end_in_time() -> None:
    seen: list[tuple[Ticket, Event]] = []
    worker = Worker(_engine(), wake=seen.extend, max_open=3)
    worker.start()
    ticket = worker.submit(_request(temperature=0, max_tokens=2000), None)
    assert not worker.stop(timeout_s=0.05)
    [job] = [event.job for own, event in seen if own is ticket and isinstance(event, JobEnd)]
    assert job.output().outputs[0].finish_reason == "abort"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_engine_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Ticket, Event]] = []
    engine = _engine()
    worker = Worker(engine, wake=seen.extend, max_open=9)

    def dies() -> bool:
        raise AssertionError("a book is wrong")

    monkeypatch.setattr(engine, "step", dies)
    tickets = [worker.submit(_request(temperature=0), None) for _ in range(4)]
    worker.start()
    worker.stop(timeout_s=30)
    assert not worker.is_alive
    ends = {ticket: event.job for ticket, event in seen if isinstance(event, JobEnd)}
    assert set(ends) == set(tickets)
    for job in ends.values():
        with pytest.raises(CirciusError, match="engine has died: AssertionError: a book is wrong"):
            job.output()
