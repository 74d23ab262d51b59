"""Timing a model: reading prompts of some lengths, decoding after contexts of some lengths and in several streams.

Timed is the model with its cache: no tokenizer, no sampling but the likeliest token, no text. What each figure must
read and compute follows from the model's shape, so that it can stand beside what the machine does at most.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from circius.engine import machine
from circius.engine.batch import new_cache
from circius.engine.generate import BatchLimits
from circius.engine.prefill import prefill
from circius.engine.workload import cache_bytes_read, operations
from circius.kernels import native
from circius.kernels.ceilings import Ceilings, better, measure_ceilings, synchronise
from circius.kernels.precision import multiplies_fast
from circius.model import RollingCache, Transformer
from circius.model.packed_layers import PackedWeight
from circius.weights.memory import available_bytes

_FIRST_TOKEN = 3  # those before are often control tokens
_WARM_UP_TOKENS = 32
_MEMORY_SHARE = 0.9
_PROBE_TOKENS = 64  # what caches round their sizes up to


@dataclass(frozen=True, kw_only=True)
class Task:
    """Something to time: a prompt of `n_tokens`, or as many tokens decoded in each of `n_rows` streams at once.

    context: the tokens that each stream holds already.
    """

    kind: Literal["prefill", "decode"]
    n_tokens: int
    context: int = 0
    n_rows: int = 1

    @property
    def name(self) -> str:
        """What such figures are called.

        >>> Task(kind="prefill", n_tokens=512).name, Task(kind="decode", n_tokens=128, context=4096, n_rows=8).name
        ('pp512', 'tg128 @ 4096 x 8')
        """
        if self.kind == "prefill":
            return f"pp{self.n_tokens}"
        context = f" @ {self.context}" if self.context else ""
        return f"tg{self.n_tokens}{context}" + (f" x {self.n_rows}" if self.n_rows > 1 else "")

    @property
    def first_position(self) -> int:
        """Of the tokens that are timed: one comes before them, to warm up, where tokens are decoded."""
        return self.context + (self.kind == "decode")

    @property
    def need(self) -> int:
        """The tokens that each stream holds at the end."""
        return self.first_position + self.n_tokens


@dataclass(frozen=True)
class Run:
    """One timing, and the share of the machine that others took meanwhile, if it is known."""

    seconds: float
    foreign_share: float | None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All runs of a task; what each of them read and computed by the model's shape."""

    task: Task
    runs: tuple[Run, ...]
    bytes_read: int
    operations: int

    @property
    def seconds(self) -> float:
        """The median."""
        return statistics.median(run.seconds for run in self.runs)

    @property
    def tokens_per_s(self) -> float:
        """The median, of all streams together."""
        return self.n_tokens / self.seconds

    @property
    def span(self) -> tuple[float, float]:
        """The slowest and the fastest run, in tokens a second."""
        taken = [run.seconds for run in self.runs]
        return self.n_tokens / max(taken), self.n_tokens / min(taken)

    @property
    def n_tokens(self) -> int:
        return self.task.n_tokens * self.task.n_rows

    @property
    def is_disturbed(self) -> bool:
        """Whether others took a good part of the machine during any run."""
        return any(machine.is_disturbed(run.foreign_share) for run in self.runs)


def tasks_of(
    prompt_lengths: Sequence[int], contexts: Sequence[int], batches: Sequence[int], n_tokens: int
) -> list[Task]:
    """Each prompt length; decoding after each context, in the first number of streams; then in the other numbers of
    streams, after the first context.

    >>> [task.name for task in tasks_of([512], [0, 4096], [1, 8], 128)]
    ['pp512', 'tg128', 'tg128 @ 4096', 'tg128 x 8']
    """
    tasks = [Task(kind="prefill", n_tokens=length) for length in prompt_lengths]
    tasks += [
        Task(kind="decode", n_tokens=n_tokens, context=each, n_rows=rows) for rows in batches[:1] for each in contexts
    ]
    tasks += [
        Task(kind="decode", n_tokens=n_tokens, context=each, n_rows=rows)
        for each in contexts[:1]
        for rows in batches[1:]
    ]
    return tasks


class Bench:
    """A model and the memory for its caches, ready to be timed."""

    def __init__(self, model: Transformer, *, context: int, limits: BatchLimits) -> None:
        """context: the most tokens of a stream, unless all layers have a window. limits: as `generate`'s."""
        self._model, self._context = model, context
        self._limits = replace(limits, speculate=0)
        self.weight_bytes = weight_bytes(model)
        probe = _PROBE_TOKENS
        self._bytes_per_value = self._cache([probe]).n_bytes / model.config.cache_bytes(probe, bytes_per_value=1)

    def why_not(self, task: Task) -> str | None:
        """What stands against a task: the context's length, or the memory; None if nothing does."""
        config = self._model.config
        if task.need > self._context and not config.has_bounded_cache:
            return f"{task.name}: {task.need} tokens do not fit the context of {self._context}"
        needed = round(task.n_rows * config.cache_bytes(task.need) * self._bytes_per_value / 2)
        available = available_bytes(self._model.device)
        if needed > _MEMORY_SHARE * available:
            return (
                f"{task.name}: its cache takes {needed / 2**30:.1f} GiB, and {available / 2**30:.1f} GiB of memory are "
                "free"
            )
        return None

    @torch.inference_mode()
    def run(self, task: Task) -> Run:
        """Times a task once, with a cache of its own."""
        cache = self._cache([task.need] * task.n_rows)
        return self._read(task, cache) if task.kind == "prefill" else self._decode(task, cache)

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Reads every weight once, so that no run waits for a disk."""
        n_tokens = min(_WARM_UP_TOKENS, self._context)
        self._model(self._tokens(n_tokens), [n_tokens], cache=self._cache([n_tokens]), logits="last")

    def measured(self, task: Task, runs: Sequence[Run]) -> Measured:
        """The runs with what each must have read and computed."""
        config, begin, n_tokens = self._model.config, task.first_position, task.n_tokens
        if task.kind == "prefill":
            n_passes, n_logits, cached = -(-n_tokens // self._limits.chunk_size), 1, 0
        else:
            n_passes, n_logits = n_tokens, n_tokens
            cached = cache_bytes_read(config, begin=begin, n_tokens=n_tokens, bytes_per_value=self._bytes_per_value)
        done = operations(config, begin=begin, n_tokens=n_tokens, n_logits=n_logits)
        return Measured(
            task=task,
            runs=tuple(runs),
            bytes_read=n_passes * self.weight_bytes + task.n_rows * cached,
            operations=task.n_rows * done,
        )

    def _read(self, task: Task, cache: RollingCache) -> Run:
        cache.touch()
        tokens = self._tokens(task.n_tokens).tolist()
        return self._timed(lambda: prefill(self._model, cache, {0: tokens}, chunk_size=self._limits.chunk_size))

    def _decode(self, task: Task, cache: RollingCache) -> Run:
        cache.pretend(task.context)
        ones = [1] * task.n_rows
        tokens = self._model(self._tokens(task.n_rows), ones, cache=cache, logits="last").argmax(dim=-1)

        def decode() -> None:
            nonlocal tokens
            for _ in range(task.n_tokens):
                tokens = self._model(tokens, ones, cache=cache, logits="last").argmax(dim=-1)

        return self._timed(decode)

    def _timed(self, work: Callable[[], object]) -> Run:
        synchronise(self._model.device)
        with machine.Watch() as watch:
            started = time.perf_counter()
            work()
            synchronise(self._model.device)
            seconds = time.perf_counter() - started
        return Run(seconds, watch.foreign_share)

    def _cache(self, needs: Sequence[int]) -> RollingCache:
        return new_cache(self._model, needs, speculate=self._limits.speculate)

    def _tokens(self, n_tokens: int) -> torch.Tensor:
        """Some tokens; which ones makes no difference to the time."""
        vocab_size = self._model.config.vocab_size
        first = min(_FIRST_TOKEN, vocab_size - 1)
        return first + torch.arange(n_tokens, device=self._model.device) % (vocab_size - first)


@dataclass(frozen=True, kw_only=True)
class Report:
    """All figures, what was left out and why, and what the machine did at most before or after them.

    arithmetic: the number format of the model's products, as `Ceilings.multiply` names it.
    load: of the machine, before and after; None where it is not counted.
    peak_memory_bytes: the most that this process has held; None where it is not counted, and on a GPU.
    """

    measured: tuple[Measured, ...]
    skipped: tuple[str, ...]
    limits: Ceilings
    arithmetic: str
    weight_bytes: int
    load: tuple[float | None, float | None]
    peak_memory_bytes: int | None


def measure(
    model: Transformer,
    tasks: Sequence[Task],
    *,
    repeats: int,
    context: int,
    limits: BatchLimits,
    on_turn: Callable[[int, int, str], object] = lambda done, total, name: None,
) -> Report:
    """Times each task so many times. They take turns, so that a bad minute of the machine hits all of them alike.

    context, limits: as `Bench`'s. on_turn: called before each run with the runs done, their total, and a name.
    """
    load_before = machine.load()
    bench = Bench(model, context=context, limits=limits)
    reasons = {task: bench.why_not(task) for task in tasks}
    runs: dict[Task, list[Run]] = {task: [] for task, reason in reasons.items() if reason is None}
    ceilings = measure_ceilings(model.device)
    bench.warm_up()
    for turn in range(repeats):
        for place, (task, own) in enumerate(runs.items()):
            on_turn(turn * len(runs) + place, repeats * len(runs), task.name)
            own.append(bench.run(task))
    return Report(
        measured=tuple(bench.measured(task, own) for task, own in runs.items()),
        skipped=tuple(reason for reason in reasons.values() if reason is not None),
        peak_memory_bytes=machine.peak_memory_bytes() if model.device.type == "cpu" else None,
        limits=better(ceilings, measure_ceilings(model.device)),  # after the peak, since it takes memory of its own
        arithmetic=arithmetic_of(model),
        weight_bytes=bench.weight_bytes,
        load=(load_before, machine.load()),
    )


def weight_bytes(model: Transformer) -> int:
    """The bytes of weights that one forward with logits reads: all but an embedding of which it looks rows up."""
    weights = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return sum(
        weight.numel() * weight.element_size()
        for name, weight in weights.items()
        if model.config.tied_output or not name.startswith("model.embed_tokens.")
    )


def arithmetic_of(model: Transformer) -> str:
    """The number format in which a model's matrices are multiplied, as `Ceilings.multiply` names it."""
    formats = {module.activations for module in model.modules() if isinstance(module, PackedWeight)}
    if formats == {"int8"} and model.device.type == "cpu" and native.available():
        return "int8"
    products = model.dtype if multiplies_fast(model.dtype, model.device) else torch.float32
    return str(products).removeprefix("torch.")
