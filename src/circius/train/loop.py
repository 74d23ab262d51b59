"""One loop for every kind of run: draw, sum, divide once, clip, step; look now and then; save what is needed to go on.

What is learnt is the objective's business, where batches come from the stream's, and what is shown the watcher's.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch

from circius.base.config import ModelConfig
from circius.base.errors import StorageError
from circius.engine.machine import peak_memory_bytes
from circius.kernels.ceilings import synchronise
from circius.train.checkpoint import Checkpoint, keep_checkpoints, write_checkpoint
from circius.train.config import RunConfig
from circius.train.evaluation import HeldOut, Result, evaluate
from circius.train.feed import Drawing, Feed, Portion
from circius.train.guard import Guard
from circius.train.metrics import MetricsFile, Tracker, training_operations
from circius.train.objective import Objective
from circius.train.optim import Optimizer
from circius.train.parallel import sum_gradients
from circius.train.schedule import Schedule
from circius.train.stops import Stops
from circius.train.world import World

B = TypeVar("B")
Record = dict[str, Any]
Sampler = Callable[[], Sequence[Mapping[str, str]]]
"""Gives what the model says to each prompt, as fields of a line of the metrics: prompt, how, text."""


class Watcher(Protocol):
    """Who is told what happens, as it happens; only in the first process."""

    def stepped(self, record: Record, n_steps: int) -> None: ...
    def evaluated(self, results: Sequence[Result], step: int) -> None: ...
    def sampled(self, samples: Sequence[Mapping[str, str]], step: int) -> None: ...
    def noted(self, sentence: str) -> None: ...


@dataclass(kw_only=True)
class Standing:
    """How far a run is. seconds: of steps, in all sessions. best_*: of evaluations; stale: how many since."""

    step: int = 0
    tokens: int = 0
    learnt: int = 0
    seconds: float = 0.0
    best_loss: float | None = None
    best_step: int | None = None
    stale: int = 0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """signal: the number of the one that stopped the run, 0 if none did. has_stalled: whether it ended early because
    evaluations no longer got better."""

    step: int
    signal: int
    has_stalled: bool


@dataclass(frozen=True, kw_only=True)
class Pieces(Generic[B]):
    """What the loop works with. shape: of the whole model. identity: of the configuration and of frozen weights, for
    checkpoints. peak: operations a second of one process."""

    config: RunConfig
    n_steps: int
    shape: ModelConfig
    objective: Objective[B]
    optimizer: Optimizer
    schedule: Schedule
    stream: Drawing[B]
    held_out: Sequence[HeldOut[B]]
    sampler: Sampler | None
    world: World
    watcher: Watcher
    checkpoints: Path
    identity: Mapping[str, str | None]
    peak: float | None = None


class Loop(Generic[B]):
    """A run from where it is to its end, or to where it is stopped."""

    def __init__(self, pieces: Pieces[B]) -> None:
        self._pieces = pieces
        self.standing = Standing()
        self._guard = Guard(max_z=pieces.config.guard)
        self._stream_state = pieces.stream.state()
        self._metrics: MetricsFile | None = None
        self._trackers: Sequence[Tracker] = ()
        self._saved_step: int | None = None
        self._is_best = False

    @property
    def trained(self) -> dict[str, torch.Tensor]:
        """What a checkpoint keeps of the weights."""
        named = self._pieces.objective.model.named_parameters()
        return {name: parameter for name, parameter in named if parameter.requires_grad}

    def resume(self, checkpoint: Checkpoint) -> None:
        """Goes to where a checkpoint was made; every process calls this.

        Raises:
            CheckpointError: it does not fit the run.
            InvalidInputError: it was made with other data.
        """
        pieces, state = self._pieces, checkpoint.state
        checkpoint.read("model", self.trained)
        remembered = pieces.optimizer.state_dict()
        checkpoint.read("optimizer", remembered)
        pieces.optimizer.load_state_dict(remembered)
        pieces.stream.restore(state["stream"])
        self._stream_state = state["stream"]
        self._guard.restore(state["guard"])
        self.standing = Standing(**state["standing"])
        self._saved_step = checkpoint.step
        checkpoint.restore_random(pieces.world)

    def run(self, metrics: MetricsFile | None, trackers: Sequence[Tracker] = ()) -> Outcome:
        """Takes the steps that are left. metrics: where lines go; None in all processes but the first.

        Raises:
            CirciusError: too many steps in a row went wrong, or what cannot be written.
        """
        pieces, world, kept = self._pieces, self._pieces.world, self._pieces.config.checkpoints
        self._metrics, self._trackers = metrics, trackers
        signal, has_stalled = 0, self._has_stalled
        stops = Stops(is_one_of_many=world.size > 1)
        with stops, Feed(pieces.stream, n_batches=pieces.config.n_batches, world=world) as feed:
            if pieces.held_out and self.standing.step == 0:
                self._evaluate()  # where it began, for comparison; no checkpoint could be the best one of it
            while self.standing.step < pieces.n_steps and not signal and not has_stalled:
                self._step(feed.next())
                self._look()
                has_stalled = self._has_stalled
                signal = world.greatest(stops.asked)
                if signal or self._is_due(kept.every) or (kept.keep_best and self._is_best):
                    self._save_if_possible(is_needed=bool(signal))
        if not signal:
            self._save_if_possible(is_needed=True)
        return Outcome(step=self.standing.step, signal=signal, has_stalled=has_stalled)

    def _step(self, portion: Portion[B]) -> None:
        """One step of the optimiser, or none if the guard forbids it."""
        pieces, world, standing = self._pieces, self._pieces.world, self.standing
        began = time.perf_counter()
        objective, config = pieces.objective, pieces.config
        lengths = [length for batch in portion.batches for length in objective.lengths(batch)]
        work = training_operations(pieces.shape, lengths, is_frozen=config.lora is not None)
        n_own = sum(objective.count(batch) for batch in portion.batches)
        n, n_tokens, all_work = world.summed([n_own, sum(lengths), work])
        pieces.optimizer.zero_grad()
        shown = [self._backward(batch, n) for batch in portion.batches]
        if config.parallel.sharing == "copies":
            sum_gradients(pieces.optimizer.gradients(), world)
        norm = pieces.optimizer.clip(config.clip)
        means = self._means(shown, n)
        factor = pieces.schedule(standing.step)
        is_allowed = self._guard.allows(means["loss"], norm)
        if is_allowed:
            pieces.optimizer.step(factor)
        synchronise(world.device)
        seconds = time.perf_counter() - began + portion.waited_s
        standing.step += 1
        standing.tokens += int(n_tokens)
        standing.learnt += int(n)
        standing.seconds += seconds
        self._stream_state = portion.state
        record: Record = {"kind": "train", "step": standing.step, **means}
        record |= {"lr": config.optimizer.lr * factor, "grad_norm": norm, "n": int(n), "tokens": int(n_tokens)}
        record |= {"skipped": True} if not is_allowed else {}
        record |= {
            "seconds": seconds,
            "tokens_per_s": n_tokens / seconds,
            "mfu": all_work / seconds / (pieces.peak * world.size) if pieces.peak else None,
            "waited": portion.waited_s / seconds,
            "memory_bytes": _memory_bytes(world.device),
        }
        self._tell(record)

    def _backward(self, batch: B, n: float) -> dict[str, torch.Tensor]:
        summed = self._pieces.objective(batch)
        (summed.total / max(n, 1.0)).backward()
        shown: dict[str, torch.Tensor] = summed.shown
        return shown

    def _means(self, shown: Sequence[Mapping[str, torch.Tensor]], n: float) -> dict[str, float]:
        """What the objective shows, over all processes, a unit."""
        names = list(shown[0])
        own = [sum(float(one[name]) for one in shown) for name in names]
        sums = self._pieces.world.summed(own)
        return {name: total / max(n, 1.0) for name, total in zip(names, sums, strict=True)}

    def _tell(self, record: Record) -> None:
        if self._metrics is None:
            return
        self._metrics.write(record)
        values = {name: value for name, value in record.items() if isinstance(value, float)}
        for tracker in self._trackers:
            tracker.log(record["step"], {f"train/{name}": value for name, value in values.items()})
        self._pieces.watcher.stepped(record, self._pieces.n_steps)

    @property
    def _has_stalled(self) -> bool:
        """Whether evaluations have stopped getting better."""
        patience = self._pieces.config.evaluation.patience
        return patience is not None and self.standing.stale >= patience

    def _look(self) -> None:
        """Evaluates and samples if it is time."""
        pieces, standing = self._pieces, self.standing
        self._is_best = False
        if pieces.held_out and self._is_due(pieces.config.evaluation.every):
            self._compare(self._evaluate())
        if pieces.sampler is not None and (self._is_due(pieces.config.samples.every) or self._has_stalled):
            said = pieces.sampler()
            if self._metrics is not None:
                for sample in said:
                    self._metrics.write({"kind": "sample", "step": standing.step, **sample})
                pieces.watcher.sampled(said, standing.step)

    def _evaluate(self) -> float:
        """The mean loss over all that is held out, written down and shown."""
        pieces, standing = self._pieces, self.standing
        most = pieces.config.evaluation.max_batches
        results = [evaluate(pieces.objective, held_out, pieces.world, max_batches=most) for held_out in pieces.held_out]
        if self._metrics is not None:
            for result in results:
                record = result.record(per_token=pieces.objective.unit == "token")
                self._metrics.write({"kind": "eval", "step": standing.step, **record})
                for tracker in self._trackers:
                    tracker.log(standing.step, {f"{result.name}/{name}": mean for name, mean in result.means.items()})
            pieces.watcher.evaluated(results, standing.step)
        return sum(result.loss * result.n for result in results) / max(1, sum(result.n for result in results))

    def _compare(self, loss: float) -> None:
        """Remembers the loss of an evaluation if it is the lowest so far."""
        standing = self.standing
        self._is_best = standing.best_loss is None or (
            loss < standing.best_loss - self._pieces.config.evaluation.least_gain
        )
        standing.stale += 1
        if self._is_best:
            standing.best_loss, standing.best_step, standing.stale = loss, standing.step, 0

    def _is_due(self, every: int) -> bool:
        return self.standing.step % every == 0 or self.standing.step == self._pieces.n_steps

    def _save_if_possible(self, *, is_needed: bool) -> None:
        """A checkpoint of this step, if there is none yet. A disk that is full costs the checkpoint and not the run,
        unless the run ends with it."""
        if self._saved_step == self.standing.step:
            return
        try:
            self._save()
        except StorageError as error:
            if is_needed:
                raise
            if self._metrics is not None:
                self._metrics.write({"kind": "note", "step": self.standing.step, "text": f"no checkpoint: {error}"})
                self._pieces.watcher.noted(f"no checkpoint at step {self.standing.step}, the run goes on: {error}")

    def _save(self) -> None:
        pieces, kept = self._pieces, self._pieces.config.checkpoints
        state = {
            "identity": dict(pieces.identity),
            "standing": asdict(self.standing),
            "stream": self._stream_state,
            "guard": self._guard.state(),
            "metrics_offset": 0 if self._metrics is None else self._metrics.settle(),
        }
        groups = {"model": self.trained, "optimizer": pieces.optimizer.state_dict()}
        write_checkpoint(pieces.checkpoints, self.standing.step, groups, state, pieces.world)
        self._saved_step = self.standing.step
        if pieces.world.is_first:
            best = self.standing.best_step if kept.keep_best else None
            keep_checkpoints(pieces.checkpoints, last=kept.keep_last, best=best)


def _memory_bytes(device: torch.device) -> int | None:
    """The most that was held so far: on a GPU by tensors, else by the process."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory_bytes()
