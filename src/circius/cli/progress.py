"""Progress bars for what lasts longer than a moment: on stderr, only where somebody is watching."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Protocol

from circius.cli.output import Output


class OnProgress(Protocol):
    """Called with what is done and what there is in all, and a word on how it stands."""

    def __call__(self, done: int, total: int, word: str = "", /) -> None: ...


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
        yield lambda done, total, word="": bar.update(
            task, completed=done, total=total, description=f"{label} {word}".rstrip()
        )
    finally:
        patience.cancel()
        patience.join()
        bar.stop()


def _ignore(done: int, total: int, word: str = "", /) -> None:
    """For those who do not watch."""
