"""The engine gives every request what it would get alone, whatever arrives beside it and whatever is aborted."""

from functools import cache
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from circius.base.config import Window
from circius.engine.answer import Answer
from circius.engine.answers import new_answer
from circius.engine.batch import Batch, new_cache
from circius.engine.devices import is_exact_in_batches
from circius.engine.engine import Engine
from circius.engine.engine_limits import EngineLimits
from circius.engine.job import Job
from circius.engine.outputs import CompletionOutput
from circius.engine.params import SamplingParams
from circius.engine.request import Limits, Request, make_request
from circius.kernels import ring_attention
from circius.model import Transformer
from tests.models import random_model
from tests.packed import fully_packed_model, packable_config, packed_model

WINDOWS = (None, 5, 64, 65, 100)
CONTEXT = 400
pytestmark = pytest.mark.skipif(not ring_attention.is_fast(), reason="bitwise only with the native kernels")


@cache
def _model(window: Window, kind: str = "packed") -> Transformer:
    """packed: exact in batches as it is; the others after `fix_order`."""
    config = packable_config(window=window)
    if kind == "packed":
        return fully_packed_model(config)
    model = packed_model(config) if kind == "unrounded" else random_model(config).requires_grad_(False)
    if kind == "unrounded":
        model.set_activations("float")
    if kind == "bfloat16":
        model = model.to(torch.bfloat16)
    model.fix_order()
    assert is_exact_in_batches(model)
    return model


def _request(prompt: list[int], params: SamplingParams) -> Request:
    return make_request(prompt, params, Limits(context=CONTEXT, vocab_size=61, has_tokenizer=False))


@cache
def _alone(
    window: Window, kind: str, prompt: tuple[int, ...], seed: int, temperature: float, n: int, length: int, logs: bool
):
    request = _request(list(prompt), _params(seed, temperature, n, length, logs))
    model = _model(window, kind)
    answers = [new_answer(request, index, None) for index in range(n)]
    batch = Batch(model, new_cache(model, [request.n_cache_tokens] * n, speculate=0), answers, chunk_size=512)
    assert batch.run()
    return batch.output(request, 0.0)


def _params(seed: int, temperature: float, n: int, length: int, logs: bool) -> SamplingParams:
    return SamplingParams(
        seed=seed, temperature=temperature, n=n if temperature else 1, max_tokens=length, frequency_penalty=0.1,
        logprobs=2 if logs else None, prompt_logprobs=1 if logs else None,
    )  # fmt: skip


class Arrivals(RuleBasedStateMachine):
    """Requests come, steps are taken, some are aborted; after each the engine's books are checked."""

    @initialize(
        window=st.sampled_from(WINDOWS),
        kind=st.sampled_from(["packed", "float32", "bfloat16", "unrounded"]),
        n_pages=st.integers(8, 20),
        streams=st.integers(1, 5),
        chunk=st.integers(1, 150),
        mixed=st.integers(1, 150),
        speculate=st.sampled_from([0, 4]),
        shares=st.booleans(),
    )
    def begin(
        self,
        window: Window,
        kind: str,
        n_pages: int,
        streams: int,
        chunk: int,
        mixed: int,
        speculate: int,
        shares: bool,
    ) -> None:
        self.window, self.kind = window, kind
        self.engine = Engine(
            _model(window, kind),
            limits=EngineLimits(
                cache_tokens=64 * n_pages, max_streams=streams, chunk_size=chunk, mixed_chunk_size=mixed,
                speculate=speculate, shares_prefixes=shares,
            ),
        )  # fmt: skip
        # How much is drafted must not follow the clock, or no failure could be shown again.
        timed = self.engine._speculator.timed
        self.engine._speculator.timed = lambda n_rows, n_tokens, _: timed(n_rows, n_tokens, 1.0)  # type: ignore[method-assign]
        self.jobs: dict[Job, tuple[object, ...]] = {}
        self.ended: list[Job] = []
        self.aborted: set[Answer] = set()

    @rule(
        n_shared=st.integers(0, 230),
        n_own=st.integers(1, 40),
        seed=st.integers(0, 3),
        temperature=st.sampled_from([0.0, 1.0]),
        n=st.integers(1, 3),
        length=st.integers(1, 60),
        logs=st.booleans(),
        salt=st.sampled_from([b"", b"other"]),
    )
    def submit(
        self, n_shared: int, n_own: int, seed: int, temperature: float, n: int, length: int, logs: bool, salt: bytes
    ) -> None:
        random = Random(seed)
        prompt = [*([3, 1, 4, 1, 5, 9, 2, 6] * 40)[:n_shared], *(random.randrange(61) for _ in range(n_own))]
        n = n if temperature else 1
        request = _request(prompt, _params(seed, temperature, n, length, logs))
        job = self.engine.submit(request, ended=self.ended.append, salt=salt)
        self.jobs[job] = (self.window, self.kind, tuple(prompt), seed, temperature, n, length, logs)

    @rule(n=st.integers(1, 12))
    def step(self, n: int) -> None:
        for _ in range(n):
            self.engine.step()
            self.engine.check()

    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        if running := self.engine.jobs:
            job = data.draw(st.sampled_from(running))
            self.engine.abort(job)
            assert job in self.ended
            assert all(output.finish_reason is not None for output in job.output().outputs)
            self.jobs.pop(job, None)

    @rule(data=st.data())
    def abort_one_answer(self, data: st.DataObject) -> None:
        if running := [job for job in self.engine.jobs if len(job.answers) > 1]:
            job = data.draw(st.sampled_from(running))
            answer = data.draw(st.sampled_from(job.answers))
            if answer.is_running:
                self.aborted.add(answer)
            self.engine.abort_answer(job, answer)

    @invariant()
    def books_are_right(self) -> None:
        if hasattr(self, "engine"):
            self.engine.check()

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        for _ in range(100_000):
            if not self.engine.step():
                break
        self.engine.check()
        assert not self.engine.jobs
        assert self.engine.pool.n_held == 0, "an ended request holds pages"
        for job, key in self.jobs.items():
            alone, own = _alone(*key), job.output()  # type: ignore[arg-type]
            kept = [index for index, answer in enumerate(job.answers) if answer not in self.aborted]
            assert [own.outputs[index] for index in kept] == [alone.outputs[index] for index in kept]
            if len(kept) == len(job.answers):
                assert own.prompt_logprobs == alone.prompt_logprobs
        assert len(self.ended) == len(set(self.ended))


Arrivals.TestCase.settings = settings(max_examples=100, stateful_step_count=20, deadline=None)
TestArrivals = Arrivals.TestCase


@settings(max_examples=25, deadline=None)
@given(
    window=st.sampled_from(WINDOWS),
    lengths=st.lists(st.integers(1, 200), min_size=2, max_size=6),
    chunk=st.integers(1, 200),
)
def test_pages_give_the_bits_that_rings_give(window: Window, lengths: list[int], chunk: int) -> None:
    """Logits, not only tokens."""
    model, logs = _model(window), {"logprobs": 3, "prompt_logprobs": 3}
    requests = [
        _request([(7 * i + j * j) % 61 for j in range(n)], SamplingParams.greedy(max_tokens=5, **logs))
        for i, n in enumerate(lengths)
    ]
    engine = Engine(model, limits=EngineLimits(cache_tokens=64 * 60, chunk_size=chunk, mixed_chunk_size=chunk))
    jobs = [engine.submit(request) for request in requests]
    while engine.step():
        pass
    for request, job in zip(requests, jobs, strict=True):
        batch = Batch(
            model, new_cache(model, [request.n_cache_tokens], speculate=0), [new_answer(request, 0, None)],
            chunk_size=512,
        )  # fmt: skip
        batch.run()
        alone = batch.output(request, 0.0)
        assert job.output().outputs == alone.outputs
        assert job.output().prompt_logprobs == alone.prompt_logprobs


@pytest.mark.parametrize("window", [None, 5, 70])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8])
def test_torch_s_own_operations_agree_with_the_native_ones(
    window: Window, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers() -> list[CompletionOutput]:
        model = _model(window)
        monkeypatch.setattr(model, "_cache_dtype", dtype)
        engine = Engine(model, limits=EngineLimits(cache_tokens=64 * 30, chunk_size=40, mixed_chunk_size=13))
        params = SamplingParams.greedy(max_tokens=6, logprobs=0)
        jobs = [engine.submit(_request([(i + j * j) % 61 for j in range(90 + i)], params)) for i in range(3)]
        while engine.step():
            pass
        return [job.output().outputs[0] for job in jobs]

    native = answers()
    monkeypatch.setattr(ring_attention, "is_fast", lambda: False)
    for own, other in zip(answers(), native, strict=True):
        assert own.token_ids == other.token_ids
        assert own.cumulative_logprob == pytest.approx(other.cumulative_logprob, abs=1e-3)
