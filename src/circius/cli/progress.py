"""Progress bars for what lasts longer than a moment: on stderr, only where somebody is watching."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer

from circius.cli.output import Output

OnProgress = Callable[[int, int], None]

PATIENCE_S = 0.5
"""How long something may take before a bar appears for it."""


@contextmanager
def progress(label: str, output: Output, *, unit: str = "") -> Iterator[OnProgress]:
    """Gives a function `(done, total)` that draws a bar named `label`; the bar is gone when the block ends.

    `unit` is "bytes" for sizes and rates in bytes, or empty for a percentage alone.
    """
    if not output.shows_progress:
        yield _ignore
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    sizes = (DownloadColumn(binary_units=True), TransferSpeedColumn()) if unit == "bytes" else (TaskProgressColumn(),)
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *sizes,
        TimeRemainingColumn(),
        console=output.aside,
        transient=True,
    )
    task = bar.add_task(label, total=None)
    patience = Timer(PATIENCE_S, bar.start)
    patience.start()
    try:
        yield lambda done, total: bar.update(task, completed=done, total=total)
    finally:
        patience.cancel()
        patience.join()
        bar.stop()


def _ignore(done: int, total: int) -> None:
    """For those who do not watch."""
