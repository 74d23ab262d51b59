"""Guessing the next tokens from what the text repeats, and deciding how many guesses to verify. No torch here.

One forward verifies a draft: it gives the logits behind every token of it, and the sampler goes through them as it
would one forward after the other. So drafts change how long a text takes, never which text it is, and the number of
drafted tokens may follow the clock.

Two quantities decide it, both measured while the text is made. How likely a guess is right depends most on how long a
repetition it continues; every token tells whether the guess for it was right, whether it was drafted or not, so that
nothing need ever be drafted for the sake of knowing. And how long a forward of so many tokens takes, on this machine
and at this moment.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from operator import mul
from statistics import median

from circius.engine.lookup import LONGEST, Lookup, Match

MOST_DRAFTED = 8
INEXACT_DRAFTS = (
    "speculation: with these weights the last bits of the logits depend on how many tokens are computed together, so "
    "where two tokens are nearly equally likely the choice can differ from that without it"
)
_SHORTEST_MEMORY = 0.05
"""The weight of the newest token in a rate: about twenty tokens are remembered."""
_WORTH = 1.03
"""The gain from which on a draft is tried; less would be lost again in what cannot be measured so finely."""
_UNTRIED = 0.08
"""What each token past the largest step that was measured is taken to cost, as a share of the smallest."""
_KEPT_TIMES = 7
_STEPS_KEPT = 200
"""The time of so many steps ago says nothing any more: the context has grown, the machine is busy with other things."""
_PLAIN_EVERY = 50
"""A step without drafts at least so often, or nothing would tell what they save."""


class HitRates:
    """How often the guess was right, lately, by the length of the match that it continues."""

    def __init__(self) -> None:
        self._rates = [length / (length + 3) for length in range(LONGEST + 1)]
        self._counts = [0] * (LONGEST + 1)

    def note(self, length: int, *, hit: bool) -> None:
        """Counts one guess."""
        self._counts[length] += 1
        weight = max(_SHORTEST_MEMORY, 1 / (self._counts[length] + 4))
        self._rates[length] += weight * (hit - self._rates[length])

    def chances(self, length: int, n_tokens: int) -> list[float]:
        """How likely the first, the first two, ... of `n_tokens` drafted behind such a match are all right."""
        return list(accumulate((self._rates[min(length + i, LONGEST)] for i in range(n_tokens)), mul))


class StepTimes:
    """How long a step over so many tokens takes, by the last few times it was measured."""

    def __init__(self) -> None:
        self._times: dict[int, deque[float]] = {}
        self._medians: dict[int, float] = {}
        self._measured_at: dict[int, int] = {}
        self._n_steps = 0

    def note(self, n_tokens: int, seconds: float) -> None:
        """Takes one measurement, and forgets those that are too old."""
        self._n_steps += 1
        times = self._times.setdefault(n_tokens, deque(maxlen=_KEPT_TIMES))
        times.append(seconds)
        self._medians[n_tokens] = median(times)
        self._measured_at[n_tokens] = self._n_steps
        for old in [n for n, at in self._measured_at.items() if self._n_steps - at > _STEPS_KEPT]:
            del self._times[old], self._medians[old], self._measured_at[old]

    def age(self, n_tokens: int) -> int | None:
        """The steps since this was last measured."""
        return self._n_steps - self._measured_at[n_tokens] if n_tokens in self._measured_at else None

    def estimate(self, largest: int) -> list[float]:
        """The seconds for 0, 1, ... `largest` tokens; something must have been measured.

        Between two measurements on a line; never more than a measured time for more tokens; past all of them hardly
        more than the last, so that what was never tried looks worth a try.

        >>> times = StepTimes()
        >>> times.note(1, 1.0)
        >>> times.note(3, 4.0)
        >>> times.note(5, 2.0)
        >>> times.estimate(6)
        [1.0, 1.0, 1.5, 2.0, 2.0, 2.0, 2.08]
        """
        known = sorted(self._medians)
        lowest = [self._medians[n] for n in known]
        for i in range(len(known) - 2, -1, -1):
            lowest[i] = min(lowest[i], lowest[i + 1])
        found = [lowest[0]] * (known[0] + 1)
        for (n, seconds), (next_n, next_seconds) in pairwise(zip(known, lowest, strict=True)):
            slope = (next_seconds - seconds) / (next_n - n)
            found += [seconds + slope * (i + 1) for i in range(next_n - n)]
        n_past = largest + 1 - len(found)
        return found + [lowest[-1] + _UNTRIED * lowest[0] * (i + 1) for i in range(n_past)]


def draft_lengths(chances: Sequence[Sequence[float]], seconds: Sequence[float]) -> list[int]:
    """How many tokens to draft for each row, so that the batch is expected to advance fastest.

    chances: for each row how likely its first, first two, ... drafted tokens are all right.
    seconds: what a step over 0, 1, ... tokens takes, up to one for each row and all that could be drafted.

    >>> draft_lengths([[0.9, 0.8, 0.1], [0.3]], [0, 0, 1.0, 1.1, 1.2, 1.3, 1.4])
    [2, 0]
    """
    likeliest = sorted(((c, row) for row, own in enumerate(chances) for c in own), reverse=True)
    n_rows = len(chances)
    plain = n_rows / seconds[n_rows]
    best, n_best, expected = plain * _WORTH, 0, float(n_rows)
    for n_drafted, (chance, _) in enumerate(likeliest, start=1):
        expected += chance
        if (rate := expected / seconds[n_rows + n_drafted]) > best:
            best, n_best = rate, n_drafted
    lengths = [0] * n_rows
    for _, row in likeliest[:n_best]:
        lengths[row] += 1
    return lengths


class Speculator:
    """Drafts for the rows of a batch, from the text of each row alone."""

    def __init__(self, texts: Sequence[Sequence[int]] | Mapping[int, Sequence[int]], *, n_most: int) -> None:
        """texts: of each row as far as it was known before its first `took`; a mapping may change.
        n_most: the tokens of one draft at the most; 0 drafts nothing and costs nothing."""
        self._texts, self._n_most = texts, n_most
        self._lookups: dict[int, Lookup] = {}
        self._matches: dict[int, Match | None] = {}
        self._rates = HitRates()
        self._times: dict[int, StepTimes] = {}

    def took(self, rows: Sequence[int], tokens: Sequence[Sequence[int]]) -> None:
        """Continues the texts of some rows by some tokens each."""
        if not self._n_most:
            return
        for row, own in zip(rows, tokens, strict=True):
            # Made when the first token is on its way already: the prompt can be long.
            lookup = self._lookups.get(row) or self._lookups.setdefault(row, Lookup(self._texts[row]))
            for token in own:
                if match := self._matches.get(row):
                    self._rates.note(match.length, hit=lookup.tokens[match.place] == token)
                lookup.append(token)
                self._matches[row] = lookup.match()

    def forget(self, row: int) -> None:
        """Drops a row whose text has ended."""
        self._lookups.pop(row, None)
        self._matches.pop(row, None)

    def timed(self, n_rows: int, n_tokens: int, seconds: float) -> None:
        """Notes how long a step over `n_tokens` of `n_rows` rows took."""
        if not self._n_most:
            return
        self._times.setdefault(n_rows, StepTimes()).note(n_tokens, seconds)

    def drafts(self, rows: Sequence[int], rooms: Sequence[int]) -> list[list[int]]:
        """A draft for each of the rows, of at most so many tokens as its room; an empty one where none pays."""
        times = self._times.get(len(rows))
        age = times.age(len(rows)) if times else None
        if times is None or age is None or age >= _PLAIN_EVERY:
            return [[] for _ in rows]
        matches = [self._matches.get(row) for row in rows]
        chances = [
            self._rates.chances(match.length, min(self._n_most, room)) if match else []
            for match, room in zip(matches, rooms, strict=True)
        ]
        n_possible = sum(map(len, chances))
        if not n_possible:
            return [[] for _ in rows]
        lengths = draft_lengths(chances, times.estimate(len(rows) + n_possible))
        return [
            self._lookups[row].continuation(match, length) if match and length else []
            for row, match, length in zip(rows, matches, lengths, strict=True)
        ]
