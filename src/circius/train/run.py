"""A whole run: look at everything before any time is spent, go on where it stopped, train, write what came out."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from circius.base.errors import CheckpointError, CirciusError, ConfigError
from circius.engine.devices import pick_device
from circius.kernels.ceilings import synchronise
from circius.train.assembly import Progress, assemble
from circius.train.checkpoint import Checkpoint, find_checkpoints, remove_unfinished
from circius.train.config import RunConfig
from circius.train.evaluation import Result
from circius.train.loop import Loop, Outcome, Pieces, Record, Watcher
from circius.train.metrics import METRICS_FILE, MetricsFile, Tracker, check_trackers, open_tracker
from circius.train.plan import remedies
from circius.train.prepared import Prepared, prepare
from circius.train.product import with_base, write_product
from circius.train.report import write_report
from circius.train.run_folder import REPORT_FILE, RunFolder, move_aside
from circius.train.stored_state import n_bytes
from circius.train.world import World, join_world, leave_world
from circius.weights.target import check_space

OnPrepared = Callable[[Prepared], None]


@dataclass(frozen=True, kw_only=True)
class Finished:
    """How a run ended. product, report: where they are; no product if a signal stopped it."""

    outcome: Outcome
    n_steps: int
    best_loss: float | None
    product: Path | None
    report: Path


def train(
    config: RunConfig,
    path: Path,
    *,
    watcher: Watcher | None = None,
    restart: bool = False,
    on_prepared: OnPrepared | None = None,
    on_progress: Progress | None = None,
) -> Finished:
    """Runs `config` in the folder `path`, from its last checkpoint if it has one.

    Every process of a run calls this; the watcher and the callbacks are called in the first one.

    restart: move what is in the folder aside and begin anew. on_prepared: told of the plan before a weight is read.

    Raises:
        CirciusError: a child of it that says what is wrong, and what to do.
    """
    with joined(config) as world:
        config = with_base(config)
        folder = world.together(lambda: _folder(path, config, restart=restart) if world.is_first else None)
        with _locked(folder, world):
            prepared = world.together(lambda: prepare(config, world))
            if on_prepared is not None and world.is_first:
                on_prepared(prepared)
            try:
                pieces = assemble(prepared, path, world, watcher or Silent(), on_progress if world.is_first else None)
                return _Course(prepared, pieces, path, folder).run()
            except (MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                raise CirciusError(f"out of memory: {remedies(config, prepared.plan.memory)}") from error


def plan_run(config: RunConfig, *, probes: bool, on_progress: Progress | None = None) -> Prepared:
    """What a run would take; nothing is written.

    probes: whether to measure the speed, with two micro-batches of which the second is timed.

    Raises:
        CirciusError: as `train`.
    """
    with joined(config) as world:
        prepared = prepare(config, world)
        if not probes:
            return prepared
        speed = _speed(assemble(prepared, None, world, Silent(), on_progress))
        return replace(prepared, plan=replace(prepared.plan, tokens_per_s=speed))


@contextmanager
def joined(config: RunConfig) -> Iterator[World]:
    """The processes of a run, from the first word to the last.

    Raises:
        CirciusError: the device is not there, or the processes do not find each other.
    """
    device, _ = pick_device(config.device)
    world = join_world(device, n_tensor=config.parallel.tensor)
    try:
        yield world
    finally:
        leave_world(world)


class Silent:
    """A watcher that says nothing."""

    def stepped(self, record: Record, n_steps: int) -> None: ...
    def evaluated(self, results: Sequence[Result], step: int) -> None: ...
    def sampled(self, samples: Sequence[Mapping[str, str]], step: int) -> None: ...
    def noted(self, sentence: str) -> None: ...


class _Course:
    """A run that has been assembled. folder: None in all processes but the first."""

    def __init__(self, prepared: Prepared, pieces: Pieces[Any], path: Path, folder: RunFolder | None) -> None:
        self._prepared, self._pieces, self._path, self._folder = prepared, pieces, path, folder
        self._world, self._loop = pieces.world, Loop(pieces)

    def run(self) -> Finished:
        """Trains from where it is, and writes what came out."""
        found = self._world.together(self._latest)
        if found is not None:
            self._check_same_start(found)
            self._loop.resume(found)
        self._world.together(lambda: self._open_folder(found))
        outcome = self._train(found)
        product = None
        if not outcome.signal:
            self._take_best()
            model, config, start = self._pieces.objective.model, self._pieces.config, self._prepared.start
            product = write_product(model, config, start, self._path, self._world)
        self._world.together(lambda: self._close_folder(outcome))
        return Finished(
            outcome=outcome,
            n_steps=self._pieces.n_steps,
            best_loss=self._loop.standing.best_loss,
            product=product,
            report=self._path / REPORT_FILE,
        )

    def _latest(self) -> Checkpoint | None:
        if self._world.is_first:
            remove_unfinished(self._pieces.checkpoints)
        found = find_checkpoints(self._pieces.checkpoints)
        if found and found[-1].step > self._pieces.n_steps:
            raise ConfigError(
                f"{self._path} has taken {found[-1].step} steps, and {self._pieces.n_steps} are asked for: ask for as "
                "many or more, or begin anew with --restart"
            )
        return found[-1] if found else None

    def _check_same_start(self, found: Checkpoint) -> None:
        """Raises CheckpointError if what is trained beside has changed since."""
        before, now = found.state["identity"]["base"], self._pieces.identity["base"]
        if before != now:
            raise CheckpointError(
                f"the weights of {self._pieces.config.model} are not those that {found.folder} was trained beside: "
                "bring them back, or begin anew with --restart"
            )

    def _open_folder(self, found: Checkpoint | None) -> None:
        """Writes down what the run is, and that it is at work."""
        if self._folder is None:
            return
        state = {**self._loop.trained, **self._pieces.optimizer.state_dict()}
        check_space(self._path, n_bytes(state) * (1 if found is not None else 2))
        self._folder.describe(self._pieces.config, self._prepared.facts())
        self._folder.begin_session(step=0 if found is None else found.step, n_processes=self._world.size)

    def _train(self, found: Checkpoint | None) -> Outcome:
        if self._folder is None:
            return self._loop.run(None)
        offset = 0 if found is None else found.state["metrics_offset"]
        with MetricsFile(self._path / METRICS_FILE, offset=offset) as metrics:
            try:
                return self._loop.run(metrics, self._trackers())
            except BaseException as error:
                self._folder.end_session(step=self._loop.standing.step, why=f"failed: {error}")
                raise

    def _trackers(self) -> list[Tracker]:
        config, first_step = self._pieces.config, self._loop.standing.step + 1
        assert self._folder is not None
        assert self._folder.record is not None
        settings = self._folder.record["config"]
        names = check_trackers(config.trackers)
        return [open_tracker(name, self._path, first_step=first_step, settings=settings) for name in names]

    def _take_best(self) -> None:
        """Goes back to the weights of the lowest evaluation, if those are wanted."""
        standing, kept = self._loop.standing, self._pieces.config.checkpoints
        if kept.export == "last" or standing.best_step in (None, standing.step):
            return
        best = [one for one in find_checkpoints(self._pieces.checkpoints) if one.step == standing.best_step]
        if not best:
            raise CheckpointError(
                f"the checkpoint of step {standing.best_step}, the best one, is gone, or the disk was full when it was "
                "due: ask for the last weights (checkpoints.export=last)"
            )
        best[0].read("model", self._loop.trained)

    def _close_folder(self, outcome: Outcome) -> None:
        if self._folder is not None:
            self._folder.end_session(step=outcome.step, why=_why(outcome))
            write_report(self._path)


def _folder(path: Path, config: RunConfig, *, restart: bool) -> RunFolder:
    if restart:
        move_aside(path)
    return RunFolder(path, config)


@contextmanager
def _locked(folder: RunFolder | None, world: World) -> Iterator[None]:
    """The first process keeps others out of the folder; what is wrong with that is said in all of them."""
    lock = folder.locked() if folder is not None else None
    world.together(lambda: lock.__enter__() if lock is not None else None)
    try:
        yield
    finally:
        if lock is not None:
            lock.__exit__(None, None, None)


def _speed(pieces: Pieces[Any]) -> float:
    """Tokens a second of all processes together, the optimiser's step not counted."""
    seconds, n_tokens = 1.0, 0
    for batch in pieces.stream.next(2):
        began = time.perf_counter()
        summed = pieces.objective(batch)
        (summed.total / max(1, pieces.objective.count(batch))).backward()
        synchronise(pieces.world.device)
        seconds, n_tokens = time.perf_counter() - began, sum(pieces.objective.lengths(batch))
        pieces.optimizer.zero_grad()
    return pieces.world.n_data * n_tokens / seconds


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _why(outcome: Outcome) -> str:
    if outcome.signal:
        return f"stopped by signal {outcome.signal}"
    return "finished early: evaluations no longer got better" if outcome.has_stalled else "finished"
