"""Being asked to stop: SIGINT and SIGTERM end a run after the step that is being taken."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stops:
    """While it is open, the first signal is remembered in `asked`; a second one acts as it always does.

    Outside the main thread, where nobody can listen to signals, nothing is heard.

    is_one_of_many: then further signals do nothing, since torchrun repeats to its processes what they have heard.
    """

    def __init__(self, *, is_one_of_many: bool = False) -> None:
        self._is_one_of_many = is_one_of_many
        self.asked = 0
        """The number of the signal; 0 as long as nobody asked."""
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._restore()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.asked = self.asked or number
        if not self._is_one_of_many:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before = {}
