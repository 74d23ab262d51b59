"""What one sees of a run: a bar with its figures where somebody watches, else a line every so many steps."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from circius.cli.output import Output, size, visible
from circius.train.words import duration

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from circius.train.evaluation import Result

_SHOWN_TEXT = 400


class TrainDisplay:
    """A run's watcher; a context manager, at whose end the bar goes."""

    def __init__(self, output: Output, *, log_every: int) -> None:
        self._output, self._log_every = output, log_every
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._seconds = 0.0
        self._n_timed = 0
        self.last: Mapping[str, Any] | None = None
        """The record of the last step."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def stepped(self, record: Mapping[str, Any], n_steps: int) -> None:
        """A step was taken, or skipped."""
        self.last = record
        self._count(record["seconds"])
        step = record["step"]
        left_s = (n_steps - step) * self._seconds
        if self._output.shows_progress:
            self._draw(record, n_steps, left_s)
        elif step % self._log_every == 0 or step == n_steps or step == 1:
            self._line(f"step {step}/{n_steps}  {figures(record)}  {duration(left_s)} left")

    def evaluated(self, results: "Sequence[Result]", step: int) -> None:
        """Held-out texts were looked at."""
        for result in results:
            means = "  ".join(f"{name} {value:.4f}" for name, value in result.means.items())
            bits = "" if result.bits_per_byte is None else f"  bits per byte {result.bits_per_byte:.4f}"
            self._line(f"step {step}: {result.name}: {means}{bits}")

    def sampled(self, samples: Sequence[Mapping[str, str]], step: int) -> None:
        """The model was asked to say something."""
        for sample in samples:
            text = visible(sample["text"])
            shown = text if len(text) <= _SHOWN_TEXT else f"{text[:_SHOWN_TEXT]}…"
            self._line(f"step {step}: {sample['prompt']!r}, {sample['how']}: {shown!r}")

    def noted(self, sentence: str) -> None:
        """Something that one should know."""
        if self._output.as_json:
            self._output.note(sentence)
        else:
            self._output.reply(f"note: {sentence}")

    def _line(self, text: str) -> None:
        """A line for people; who wants JSON finds all of it in the run's metrics."""
        if not self._output.as_json:
            self._output.dim(text)

    def _count(self, seconds: float) -> None:
        """Keeps a running mean of a step's time, which forgets slowly."""
        self._n_timed += 1
        self._seconds += (seconds - self._seconds) / min(self._n_timed, 20)

    def _draw(self, record: Mapping[str, Any], n_steps: int, left_s: float) -> None:
        if self._bar is None:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            self._bar = Progress(
                MofNCompleteColumn(),
                BarColumn(bar_width=24),
                TextColumn("{task.description}", markup=False),
                console=self._output.aside,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=n_steps)
        assert self._task is not None
        text = f"{figures(record)}  {duration(left_s)} left"
        self._bar.update(self._task, completed=record["step"], description=text)


def figures(record: Mapping[str, Any]) -> str:
    """The figures of a step, on one line.

    >>> figures({"loss": 2.5, "lr": 0.001, "grad_norm": 1.0, "tokens_per_s": 1000.0, "mfu": None, "memory_bytes": None})
    'loss 2.5000  lr 1.00e-03  norm 1.00  1,000 tok/s'
    """
    parts = [f"loss {record['loss']:.4f}"]
    parts += [f"{name} {record[name]:.3f}" for name in ("margin", "accuracy") if name in record]
    parts += [f"lr {record['lr']:.2e}", f"norm {record['grad_norm']:.2f}", f"{record['tokens_per_s']:,.0f} tok/s"]
    if record["mfu"] is not None:
        parts.append(f"MFU {record['mfu']:.0%}")
    if record["memory_bytes"] is not None:
        parts.append(size(record["memory_bytes"]))
    if record.get("skipped"):
        parts.append("skipped")
    return "  ".join(parts)
