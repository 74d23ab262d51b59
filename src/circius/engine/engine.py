"""Many requests at once: every step is one forward over the next tokens of all streams that take part.

A stream's tokens are those that it would get alone: the sampler of each has numbers of its own, and where the model is
exact in batches (`devices.is_exact_in_batches`) its logits are the same to the last bit in whatever company, however
its prompt was cut, whatever was found in the cache, and whether it was preempted on the way.
"""

import time
from collections.abc import Sequence
from secrets import token_bytes

import torch
from torch import Tensor

from circius.base.errors import CirciusError
from circius.engine.answer import Answer
from circius.engine.answers import new_answer, token_namer
from circius.engine.engine_limits import Counts, EngineLimits
from circius.engine.host_sampler import Scores, infinite_is_fine
from circius.engine.job import Deliver, Ended, Job, nobody
from circius.engine.pool import PagePool
from circius.engine.prefix import PAGE, root_key
from circius.engine.request import Request
from circius.engine.run import Ground, Run
from circius.engine.sampling import BAD_ROW, SamplerRow
from circius.engine.scheduler import Scheduler, SchedulerLimits, Work
from circius.engine.speculate import Speculator
from circius.engine.stream import Stream
from circius.model import Adapter, PagedCache, PagedRow, Transformer
from circius.text import Tokenizer


class Engine:
    """A model, the cache that its streams share, and the order in which they are served.

    It has no thread of its own: whoever has submitted calls `step` until it says that there is nothing to do. All
    methods belong to one thread.
    """

    def __init__(self, model: Transformer, *, limits: EngineLimits, tokenizer: Tokenizer | None = None) -> None:
        n_pages = limits.cache_tokens // PAGE
        self.model, self.limits, self.counts = model, limits, Counts()
        self.cache = PagedCache(model.config, n_pages, dtype=model.cache_dtype, device=model.device)
        self.pool = PagePool(n_pages)
        self.scheduler = Scheduler(
            self.pool,
            model.config.widest_window,  # pages hold all layers, so they are kept for the one that sees the furthest
            SchedulerLimits(
                max_streams=limits.max_streams,
                chunk_size=limits.chunk_size,
                mixed_chunk_size=min(limits.mixed_chunk_size, limits.chunk_size),
            ),
        )
        self._tokenizer, self._name_token = tokenizer, token_namer(tokenizer)
        self._runs: dict[Stream, Run] = {}
        self._streams: dict[Answer, Stream] = {}
        self._jobs: dict[Job, None] = {}
        self._texts: dict[int, Sequence[int]] = {}
        self._speculator = Speculator(self._texts, n_most=limits.speculate)

    @property
    def n_running(self) -> int:
        """Streams that hold pages."""
        return len(self.scheduler.running)

    @property
    def n_waiting(self) -> int:
        """Answers that have not begun, or have been preempted."""
        runs = list(self._runs.values())  # other threads ask too
        return len(self.scheduler.waiting) + sum(len(run.siblings) for run in runs)

    @property
    def n_prompt_tokens_read(self) -> int:
        """Of all prompts that were ever submitted, those found in the cache included; what is read again after a
        preemption does not count twice."""
        running = ((stream, self._runs[stream].job) for stream in self.scheduler.running)
        reading = (stream.n_cached for stream, job in running if job.first_token_at is None)
        return self.counts.n_prompt_tokens + sum(reading)

    @property
    def jobs(self) -> list[Job]:
        """Those that are running, in the order in which they came."""
        return list(self._jobs)

    def submit(
        self,
        request: Request,
        *,
        deliver: Deliver = nobody,
        ended: Ended = nobody,
        salt: bytes = b"",
        adapter: Adapter | None = None,
    ) -> Job:
        """Takes a request on. Nothing is computed before the next `step`.

        salt: only requests with the same one find each other's prompts in the cache.
        adapter: what is added to the weights for this request, on the model's device; None for what the model has.

        Raises:
            InvalidInputError: the cache could never hold it.
        """
        self.scheduler.check_fits(request.n_cache_tokens)
        answers = [new_answer(request, n, self._tokenizer) for n in range(request.params.n)]
        job = Job(request, answers, deliver=deliver, ended=ended)
        shared = salt if self.limits.shares_prefixes else token_bytes(16)
        ground = Ground(root_key(shared, adapter.fingerprint if adapter else b""), adapter)
        stream, run = self._new(job, answers[0], ground, takes_found=request.params.prompt_logprobs is None)
        run.siblings = answers[1:]
        self._jobs[job] = None
        self._enter(stream, run)
        self.scheduler.submit(stream)
        return job

    def abort(self, job: Job) -> None:
        """Ends a job as it stands; does nothing to one that has ended."""
        if job.is_running:
            self._end(job)

    def abort_answer(self, job: Job, answer: Answer) -> None:
        """Ends one answer of a job as it stands."""
        if answer.is_running:
            answer.abort()
            self._settle(job, answer)

    @torch.inference_mode()
    def step(self) -> bool:
        """Computes the next tokens of all streams that take part; False if there was nothing to do.

        A job whose numbers go wrong ends with its error, and no other does. If the forward itself fails, all jobs that
        took part end with that error.
        """
        works = self.scheduler.plan(self._drafts)
        if not works:
            assert not self._jobs, "jobs are there, and none can advance"
            return False
        began_at = time.perf_counter()
        for work in works:
            self._runs[work.stream].job.start()
        try:
            logits, begins = self._forward(works)
        except (RuntimeError, MemoryError, CirciusError) as error:
            self._fail([self._runs[work.stream].job for work in works], error)
            return True
        taken = [
            self._drawn(self._runs[work.stream], work.draft, own) if work.reaches_end else []
            for work, own in zip(works, self._rows_to_draw_from(works, logits, begins), strict=True)
        ]
        seconds = time.perf_counter() - began_at
        self._account(works, taken, seconds)
        for work, begin, tokens in zip(works, begins, taken, strict=True):
            if work.stream in self._runs:  # whose job has not just ended, by another of its answers or by a listener
                self._hand_out(work, tokens, logits[begin:])
        return True

    def check(self) -> None:
        """Asserts that no page and no stream is lost."""
        self.scheduler.check()
        assert self._runs.keys() == {*self.scheduler.running, *self.scheduler.waiting}
        assert set(self._streams.values()) == self._runs.keys()
        assert {run.job for run in self._runs.values()} == self._jobs.keys()

    def _new(self, job: Job, answer: Answer, ground: Ground, *, takes_found: bool) -> tuple[Stream, Run]:
        request = job.request
        row = SamplerRow(
            request.params, request.prompt_ids, request.end_ids, answer=answer.index,
            constraint=request.constrain() if request.constrain else None,
        )  # fmt: skip
        stream = Stream(request.prompt_ids, root=ground.root, takes_found=takes_found, n_most=request.n_cache_tokens)
        return stream, Run(job, answer, row, self.model.config.vocab_size, ground, takes_found)

    def _enter(self, stream: Stream, run: Run) -> None:
        self._runs[stream] = run
        self._streams[run.answer] = stream

    def _add(self, job: Job, answer: Answer, ground: Ground, *, takes_found: bool) -> Run:
        """Puts an answer at the end of those that wait."""
        stream, run = self._new(job, answer, ground, takes_found=takes_found)
        self._enter(stream, run)
        self.scheduler.submit(stream)
        return run

    def _forward(self, works: Sequence[Work]) -> tuple[Tensor, list[int]]:
        """The logits (n, V) of the places that are needed, on the CPU, and where those of each piece of work begin."""
        places: list[int] = []
        begins: list[int] = []
        first = 0
        for work in works:
            tokens = work.n_tokens + len(work.draft)
            begins.append(len(places))
            if self._runs[work.stream].describes(work.stream):
                places += range(first, first + tokens)
            elif work.reaches_end:
                places += range(first + work.n_tokens - 1, first + tokens)
            first += tokens
        rows = [
            PagedRow(pages=w.stream.pages, first_page=w.stream.first_page, n_cached=w.stream.n_cached) for w in works
        ]
        logits = self.model(
            torch.tensor([token for work in works for token in work.tokens], device=self.model.device),
            [work.n_tokens + len(work.draft) for work in works],
            cache=self.cache.rows(rows),
            logits=places,
            adapters=self._adapters_of(works),
        )
        return logits.cpu(), begins

    def _adapters_of(self, works: Sequence[Work]) -> list[Adapter | None] | None:
        """One for each piece of work; None if no request has one of its own."""
        own = [self._runs[work.stream].ground.adapter for work in works]
        return [adapter or self.model.adapter for adapter in own] if any(own) else None

    def _rows_to_draw_from(self, works: Sequence[Work], logits: Tensor, begins: Sequence[int]) -> list[list[Scores]]:
        ends = [*begins[1:], len(logits)]
        numbers = logits.float().numpy()
        return [
            list(numbers[end - 1 - len(work.draft) : end]) if work.reaches_end else []
            for work, end in zip(works, ends, strict=True)
        ]

    def _drawn(self, run: Run, draft: Sequence[int], places: Sequence[Scores]) -> list[int]:
        """The next tokens of a stream; none, and why in its run, if the form of its answer cannot go on."""
        try:
            with infinite_is_fine():
                return run.sampler.take(draft, places)
        except CirciusError as error:
            run.problem = error
            return []

    def _account(self, works: Sequence[Work], taken: Sequence[Sequence[int]], seconds: float) -> None:
        self.counts.n_steps += 1
        if all(work.stream.n_new == 1 for work in works):
            self._speculator.timed(len(works), sum(1 + len(work.draft) for work in works), seconds)
        for work, tokens in zip(works, taken, strict=True):
            if tokens and tokens[-1] != BAD_ROW:
                self._speculator_takes(work.stream, tokens)

    def _speculator_takes(self, stream: Stream, tokens: Sequence[int]) -> None:
        """Tells the speculator of tokens that a stream is about to get."""
        if not self.limits.speculate:
            return
        if id(stream) not in self._texts:
            self._texts[id(stream)] = tuple(stream.tokens)
        self._speculator.took([id(stream)], [tokens])

    def _drafts(self, streams: Sequence[Stream]) -> list[list[int]]:
        if not self.limits.speculate:
            return [[] for _ in streams]
        rooms = [self._runs[stream].answer.n_left - 1 for stream in streams]
        return self._speculator.drafts([id(stream) for stream in streams], rooms)

    def _hand_out(self, work: Work, tokens: Sequence[int], logits: Tensor) -> None:
        """Gives a stream's new tokens to its answer, and what it does not need any more back."""
        stream, run = work.stream, self._runs[work.stream]
        if run.describes(stream):
            run.describe_prompt(stream, work.n_tokens, logits, self._name_token)
            logits = logits[work.n_tokens - 1 :]
        if run.problem is not None:
            self._fail([run.job], run.problem)
            return
        if not tokens:
            self.scheduler.advance(work)
            return
        if run.job.first_token_at is None:
            self._note_first(run.job, stream)
        n_given, bad = run.give(stream, tokens, logits, self._name_token)
        self.counts.n_new_tokens += n_given
        if stream not in self._runs:  # a listener has ended the job
            return
        n_accepted = min(n_given, len(tokens) - 1)
        run.answer.n_drafted += len(work.draft)
        run.answer.n_accepted += n_accepted
        self.counts.n_drafted += len(work.draft)
        self.counts.n_accepted += n_accepted
        self.scheduler.advance(work, n_accepted)
        if bad is not None:
            self._fail([run.job], CirciusError(bad))
            return
        self._begin_siblings(stream, run, logits[0])
        if stream in self._runs and not run.answer.is_running:
            self._settle(run.job, run.answer)

    def _note_first(self, job: Job, stream: Stream) -> None:
        job.first_token_at = time.perf_counter()
        job.n_found = stream.n_found
        self.counts.n_prompt_tokens += len(job.request.prompt_ids)
        self.counts.n_found_tokens += stream.n_found

    def _begin_siblings(self, stream: Stream, run: Run, logits: Tensor) -> None:
        """Starts the other answers to a prompt that has just been read: from its logits (V,), on its pages."""
        siblings, run.siblings = run.siblings, []
        for answer in siblings:
            if not answer.is_running:
                continue
            own, own_run = self._new(run.job, answer, run.ground, takes_found=True)
            taken = self._drawn(own_run, (), [logits.float().numpy()])
            if own_run.problem is not None:
                self._fail([run.job], own_run.problem)
                return
            self._enter(own, own_run)
            if copy := self.scheduler.fork(stream, own):
                self.cache.copy_page(*copy)
            if taken[-1] != BAD_ROW:
                self._speculator_takes(own, taken)
            n_given, bad = own_run.give(own, taken, logits[None], self._name_token)
            self.counts.n_new_tokens += n_given
            if stream not in self._runs:
                return
            if bad is not None:
                self._fail([run.job], CirciusError(bad))
                return
            if not answer.is_running:
                self._settle(run.job, answer)

    def _settle(self, job: Job, answer: Answer) -> None:
        """Takes an answer that has ended out of the engine, and its job if that was the last."""
        run = self._forget(answer)
        siblings = [sibling for sibling in run.siblings if sibling.is_running] if run else []
        if run and siblings:  # ended before its prompt was computed: the next one reads it
            self._add(job, siblings[0], run.ground, takes_found=run.takes_found).siblings = siblings[1:]
        elif not any(other.is_running for other in job.answers):
            self._end(job)

    def _end(self, job: Job, error: CirciusError | None = None) -> None:
        del self._jobs[job]
        for answer in job.answers:
            reason = answer.finish_reason or ("error" if error else "abort")
            self.counts.n_ended[reason] = self.counts.n_ended.get(reason, 0) + 1
            self._forget(answer)
        job.end(error)

    def _forget(self, answer: Answer) -> Run | None:
        """Takes an answer's stream out; None if it has none any more, or none yet."""
        stream = self._streams.pop(answer, None)
        if stream is None:
            return None
        self._texts.pop(id(stream), None)
        self._speculator.forget(id(stream))
        self.scheduler.remove(stream)
        return self._runs.pop(stream)

    def _fail(self, jobs: Sequence[Job], error: Exception) -> None:
        known = error if isinstance(error, CirciusError) else CirciusError(f"{type(error).__name__}: {error}")
        for job in dict.fromkeys(jobs):
            self._end(job, known)
