"""Stop texts: found across the borders of tokens, and never shown by accident."""

from collections.abc import Sequence


class StopFinder:
    """Looks for stop texts in a text that arrives in pieces, holding back what may still become one.

    The stop text that is complete first wins; of those complete at the same character, the one that began
    first. So the result does not depend on how the text is cut into pieces.

    >>> finder = StopFinder(["END"])
    >>> [finder.push(piece) for piece in ("to be E", "N", "joyed EN", "D of")]
    ['to be ', '', 'ENjoyed ', '']
    >>> finder.found
    'END'
    """

    def __init__(self, stops: Sequence[str], *, include: bool = False) -> None:
        self.found: str | None = None
        self._stops = stops
        self._include = include
        self._held = ""

    def push(self, text: str) -> str:
        """The text that may be shown now. After a stop text was found, nothing more is."""
        if self.found is not None:
            return ""
        searched = self._held + text
        first = self._first_complete(searched)
        if first is not None:
            begin, self.found = first
            self._held = ""
            return searched[: begin + len(self.found)] if self._include else searched[:begin]
        keep = self._n_held(searched)
        self._held = searched[len(searched) - keep :]
        return searched[: len(searched) - keep]

    def flush(self) -> str:
        """The text still held back: the end has come, so it can no longer become a stop text."""
        held, self._held = self._held, ""
        return held

    def _first_complete(self, text: str) -> tuple[int, str] | None:
        found = [(text.find(stop), stop) for stop in self._stops]
        complete = [(begin + len(stop), begin, stop) for begin, stop in found if begin >= 0]
        if not complete:
            return None
        _, begin, stop = min(complete)
        return begin, stop

    def _n_held(self, text: str) -> int:
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for size in range(min(longest, len(text)), 0, -1):
            tail = text[len(text) - size :]
            if any(stop.startswith(tail) for stop in self._stops):
                return size
        return 0
