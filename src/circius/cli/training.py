"""What the training verbs do with a configuration: show the plan, train, say how it ended."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from circius.base.errors import InvalidInputError
from circius.cli.output import Output
from circius.cli.progress import progress
from circius.cli.train_display import TrainDisplay

if TYPE_CHECKING:
    from circius.train.assembly import Progress
    from circius.train.config import RunConfig, SourceConfig
    from circius.train.plan import Plan
    from circius.train.prepared import Prepared
    from circius.train.run import Finished

SIGNAL_BASE = 128
_FEW_STEPS = 20


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the options of a training verb say of how to run it, whatever it trains."""

    out: Path | None
    restart: bool = False
    dry_run: bool = False
    probes: bool = False
    threads: int | None = None
    as_json: bool = False
    quiet: bool = False

    def output(self) -> Output:
        """The verb's voice; of several processes only the first one has any."""
        return Output(as_json=self.as_json and _is_first(), quiet=self.quiet or not _is_first())

    def check(self) -> None:
        """Raises InvalidInputError for wishes that do not go together."""
        if self.out is None and not self.dry_run:
            raise InvalidInputError("--out RUN is missing: the folder where the run is kept")
        if self.probes and not self.dry_run:
            raise InvalidInputError("--probe belongs to --dry-run: a run measures its own speed")


def run(config: "RunConfig", wishes: Wishes, output: Output) -> None:
    """Trains, or shows what training would take; leaves with 128 + N if signal N stopped the run."""
    from circius.engine.devices import set_threads
    from circius.train.run import plan_run, train

    set_threads(wishes.threads)
    if wishes.dry_run:
        with _bars(output) as on_progress:
            prepared = plan_run(config, probes=wishes.probes, on_progress=on_progress)
        _tell_notes(prepared, output)
        _show_plan(prepared.plan, output)
        return
    assert wishes.out is not None
    with _bars(output) as on_progress, TrainDisplay(output, log_every=config.log_every) as display:
        finished = train(
            config,
            wishes.out,
            watcher=display,
            restart=wishes.restart and not _is_started_again(),
            on_prepared=lambda prepared: _begin(prepared, output),
            on_progress=on_progress,
        )
    if _is_first():
        _show_end(finished, display.last, wishes, output)
    if finished.outcome.signal:
        raise typer.Exit(SIGNAL_BASE + finished.outcome.signal)


def length_settings(epochs: float | None, steps: int | None) -> dict[str, object]:
    """The settings that --epochs and --steps are.

    Raises:
        InvalidInputError: both are given.
    """
    if epochs is not None and steps is not None:
        raise InvalidInputError("--epochs and --steps both say how long the run is: give one of them")
    return {"n_epochs": epochs, "n_steps": steps}


def with_data(config: "RunConfig", data: Sequence[Path], held_out: Sequence[Path] | None) -> "RunConfig":
    """The configuration with other data, if any are named."""
    if data:
        config = replace(config, sources=_sources(data))
    if held_out:
        config = replace(config, evaluation=replace(config.evaluation, sources=_sources(held_out), share=0.0))
    return config


def _sources(paths: Sequence[Path]) -> "tuple[SourceConfig, ...]":
    from circius.train.config import SourceConfig

    return tuple(SourceConfig(path=str(path)) for path in paths)


def _is_first() -> bool:
    """Of the processes that torchrun started, or alone."""
    return os.environ.get("RANK", "0") == "0"


def _is_started_again() -> bool:
    """Whether torchrun has started this process after another one died: then the run goes on, however it began."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def _begin(prepared: "Prepared", output: Output) -> None:
    """What one should know before the first step."""
    _tell_notes(prepared, output)
    if not output.as_json:
        for name, value in prepared.plan.lines():
            output.dim(f"{name}: {value}")


def _tell_notes(prepared: "Prepared", output: Output) -> None:
    for sentence in prepared.notes:
        output.note(sentence)
    if prepared.length.n_steps < _FEW_STEPS:
        output.note(
            f"{prepared.length.n_steps} steps are few to learn from: more --epochs, or a smaller step_tokens, make more"
        )


def _show_plan(plan: "Plan", output: Output) -> None:
    if not output.as_json:
        output.rows(plan.lines())
        return
    fields: dict[str, Any] = {
        "parameters": plan.n_parameters,
        "trained": plan.n_trained,
        "memory_bytes": dict(plan.memory),
        "steps": plan.n_steps,
        "epochs": plan.n_epochs,
        "tokens": plan.n_tokens,
        "tokens_per_step": plan.tokens_per_step,
        "tokens_per_s": plan.tokens_per_s,
        "seconds": plan.seconds,
    }
    output.emit(fields)


def _show_end(finished: "Finished", last: Any, wishes: Wishes, output: Output) -> None:
    outcome = finished.outcome
    if output.as_json:
        output.emit(
            {
                "run": str(wishes.out),
                "step": outcome.step,
                "steps": finished.n_steps,
                "loss": None if last is None else last["loss"],
                "best_loss": finished.best_loss,
                "signal": outcome.signal or None,
                "product": None if finished.product is None else str(finished.product),
                "report": str(finished.report),
            }
        )
        return
    if finished.product is not None:
        early = " early: held-out texts no longer got better" if outcome.has_stalled else ""
        output.dim(f"finished{early} at step {outcome.step}; the report: {finished.report}")
        output.line(str(finished.product))
    else:
        output.reply(
            f"stopped at step {outcome.step} of {finished.n_steps} and saved; the same command goes on from there"
        )


@contextmanager
def _bars(output: Output) -> "Iterator[Progress]":
    """Bars for what takes long before the first step, one after the other."""
    open_bars: dict[str, Any] = {}

    def tell(what: str, done: int, total: int) -> None:
        if what not in open_bars:
            bar = progress(what, output)
            open_bars[what] = (bar, bar.__enter__())
        bar, draw = open_bars[what]
        if draw is not None:
            draw(done, total)
        if done >= total and draw is not None:
            bar.__exit__(None, None, None)
            open_bars[what] = (bar, None)

    try:
        yield tell
    finally:
        for bar, draw in open_bars.values():
            if draw is not None:
                bar.__exit__(None, None, None)
