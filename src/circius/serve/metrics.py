"""What the server measures of itself, under names that dashboards made for vLLM know as well."""

import time
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from circius.engine.job import Job
from circius.engine.worker import Event, JobEnd, Ticket, Token, Worker

PREFIXES = ("circius", "vllm")
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 900)
_SHORT = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000)


class _Twins:
    """One histogram under both prefixes."""

    def __init__(self, name: str, about: str, buckets: tuple[float, ...], registry: CollectorRegistry, model: str):
        self._own = [
            Histogram(f"{prefix}:{name}", about, ["model_name"], buckets=buckets, registry=registry).labels(model)
            for prefix in PREFIXES
        ]

    def observe(self, value: float) -> None:
        for each in self._own:
            each.observe(value)


class Metrics:
    """A registry of its own, with what every request leaves behind and what the engine counts."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._registry = CollectorRegistry()
        self.worker: Worker | None = None
        """Whose counts are shown, once there is one."""
        self._first = self._twins("time_to_first_token_seconds", "From arrival to the first token.", _SECONDS)
        self._between = self._twins("request_time_per_output_token_seconds", "Mean time between tokens.", _SHORT)
        self._gap = self._twins(
            "inter_token_latency_seconds", "From one step's tokens of an answer to the next.", _SHORT
        )
        self._last_at: dict[Ticket, dict[int, float]] = {}
        self._whole = self._twins("e2e_request_latency_seconds", "From arrival to the end.", _SECONDS)
        self._queue = self._twins("request_queue_time_seconds", "From arrival to the first computed token.", _SECONDS)
        self._prefill = self._twins("request_prefill_time_seconds", "Reading the prompt.", _SECONDS)
        self._decode = self._twins("request_decode_time_seconds", "From the first token to the last.", _SECONDS)
        self._prompts = self._twins("request_prompt_tokens", "Tokens of a prompt.", _TOKENS)
        self._answers = self._twins("request_generation_tokens", "Tokens of all answers to a prompt.", _TOKENS)
        self._moderated = Counter(
            "circius:moderations", "Prompts and answers held against a policy, by what came of it.",
            ["model_name", "what", "action"], registry=self._registry,
        )  # fmt: skip
        self._registry.register(_EngineCollector(self))

    @property
    def model(self) -> str:
        return self._model

    def heard(self, events: Sequence[tuple[Ticket, Event]]) -> None:
        """Takes what happened in one step: how long each answer waited for its next tokens, and which jobs ended."""
        now = time.perf_counter()
        for ticket, answer in {(ticket, event.answer) for ticket, event in events if isinstance(event, Token)}:
            answers = self._last_at.setdefault(ticket, {})
            if answer in answers:
                self._gap.observe(now - answers[answer])
            answers[answer] = now
        for ticket, event in events:
            if isinstance(event, JobEnd):
                self._last_at.pop(ticket, None)
                self.ended(event.job)

    def ended(self, job: Job) -> None:
        """Takes the times of a job that has ended."""
        if job.error is not None or job.ended_at is None:
            return
        output = job.output()
        n_new = sum(len(answer.token_ids) for answer in output.outputs)
        self._whole.observe(job.ended_at - job.arrived_at)
        self._prompts.observe(len(job.request.prompt_ids))
        self._answers.observe(n_new)
        if job.started_at is not None:
            self._queue.observe(job.started_at - job.arrived_at)
        if job.started_at is not None and job.first_token_at is not None:
            self._first.observe(job.first_token_at - job.arrived_at)
            self._prefill.observe(job.first_token_at - job.started_at)
            self._decode.observe(job.ended_at - job.first_token_at)
            longest = max(len(answer.token_ids) for answer in output.outputs)
            if longest > 1:
                self._between.observe((job.ended_at - job.first_token_at) / (longest - 1))

    def moderated(self, what: str, action: str) -> None:
        """Counts a prompt or an answer that a policy was asked about."""
        self._moderated.labels(self._model, what, action).inc()

    def text(self) -> bytes:
        """All of it in Prometheus' format."""
        return generate_latest(self._registry)

    def _twins(self, name: str, about: str, buckets: tuple[float, ...]) -> _Twins:
        return _Twins(name, about, buckets, self._registry, self._model)


class _EngineCollector(Collector):
    """The engine's own counts, read when somebody asks."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        worker = self._metrics.worker
        if worker is None:
            return
        engine = worker.engine
        counts, pool = engine.counts, engine.pool
        gauges = {
            "num_requests_running": ("Answers that are being computed.", engine.n_running),
            "num_requests_waiting": ("Answers that wait.", engine.n_waiting),
            "kv_cache_usage_perc": ("Share of the cache's pages that are held, 0 to 1.", pool.n_held / pool.n_pages),
        }
        counters = {
            "num_preemptions": ("Streams that gave their pages back and began again.", engine.scheduler.n_preemptions),
            "prompt_tokens": ("Tokens of prompts that were read.", counts.n_prompt_tokens),
            "generation_tokens": ("New tokens.", counts.n_new_tokens),
            "prefix_cache_queries": ("Tokens of prompts that were looked up in the cache.", counts.n_prompt_tokens),
            "prefix_cache_hits": ("Those that were found there.", counts.n_found_tokens),
            "spec_decode_num_draft_tokens": ("Tokens that were guessed ahead.", counts.n_drafted),
            "spec_decode_num_accepted_tokens": ("Those that were right.", counts.n_accepted),
            "admission_rejections": ("Requests turned away because the queue was full.", worker.n_refused),
        }
        for prefix in PREFIXES:
            for name, (about, value) in gauges.items():
                gauge = GaugeMetricFamily(f"{prefix}:{name}", about, labels=["model_name"])
                gauge.add_metric([self._metrics.model], value)
                yield gauge
            for name, (about, value) in counters.items():
                counter = CounterMetricFamily(f"{prefix}:{name}", about, labels=["model_name"])
                counter.add_metric([self._metrics.model], value)
                yield counter
            ended = CounterMetricFamily(
                f"{prefix}:request_success", "Answers that ended, by reason.", labels=["model_name", "finished_reason"]
            )
            for reason, count in dict(counts.n_ended).items():
                ended.add_metric([self._metrics.model, reason], count)
            yield ended
        info = GaugeMetricFamily(
            "circius:cache_config_info", "The cache.", labels=["model_name", "n_pages", "page_tokens", "n_bytes"]
        )
        info.add_metric([self._metrics.model, f"{pool.n_pages}", "64", f"{engine.cache.n_bytes}"], 1)
        yield info
