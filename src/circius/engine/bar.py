"""A progress bar for many answers, on stderr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def answer_bar(n_requests: int) -> Iterator[Callable[[int, int], object]]:
    """Gives a function to be called with how many requests have ended, and how many there are."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("answers"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("answers", total=n_requests)
        yield lambda done, total: bar.update(task, completed=done, total=total)
