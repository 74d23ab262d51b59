"""Finding where a text repeats itself, so that what followed then can be guessed to follow now. No torch here."""

from collections.abc import Iterable
from typing import NamedTuple

LONGEST = 16
"""Longer repetitions are not told apart."""
LOOKED_AT = 32
"""How many earlier places of the last two tokens are compared, the latest first: those of a frequent pair are many."""


class Match(NamedTuple):
    """The last `length` tokens of a text, `LONGEST` at most, stood right before `place` already."""

    place: int
    length: int


class Lookup:
    """A text that grows, with an index of the pairs of neighbours in it.

    Appending a token and finding a match take constant time, whatever the length of the text.
    """

    def __init__(self, tokens: Iterable[int] = ()) -> None:
        self.tokens: list[int] = []
        self._behind_token: dict[int, int] = {}
        self._behind_pair: dict[int, int] = {}
        # By place: where the pair right before it was followed by something the time before; 0 if never.
        self._earlier: list[int] = []
        for token in tokens:
            self.append(token)

    def append(self, token: int) -> None:
        """Adds the next token. Only now has what stood before it a continuation, and can be matched."""
        tokens, place, earlier = self.tokens, len(self.tokens), 0
        if place >= 1:
            self._behind_token[tokens[-1]] = place
        if place >= 2:
            pair = _pair(tokens[-2], tokens[-1])
            earlier = self._behind_pair.get(pair, 0)
            self._behind_pair[pair] = place
        self._earlier.append(earlier)
        tokens.append(token)

    def match(self) -> Match | None:
        """The longest match of the text's end, and of equally long ones the latest; None if its last token is new.

        >>> text = Lookup([7, 1, 2, 3, 9, 2, 3, 8, 1, 2, 3])
        >>> text.match(), text.continuation(text.match(), 4)
        (Match(place=4, length=3), [9, 2, 3, 8])
        """
        tokens = self.tokens
        place = self._behind_token.get(tokens[-1], 0) if tokens else 0
        if not place:
            return None
        best = Match(place, 1)
        place = self._behind_pair.get(_pair(tokens[-2], tokens[-1]), 0) if len(tokens) >= 2 else 0
        for _ in range(LOOKED_AT):
            if not place:
                break
            length = self._common(place)
            if length > best.length:
                best = Match(place, length)
            if length == LONGEST:
                break
            place = self._earlier[place]
        return best

    def continuation(self, match: Match, n_tokens: int) -> list[int]:
        """The tokens that followed the match; where the text ends they follow themselves, as in a refrain.

        >>> Lookup([5, 6, 5, 6]).continuation(Match(place=2, length=2), 5)
        [5, 6, 5, 6, 5]
        """
        period = len(self.tokens) - match.place
        followed = self.tokens[match.place : match.place + n_tokens]
        return [followed[i % period] for i in range(n_tokens)]

    def _common(self, place: int) -> int:
        """How many tokens before `place` equal those at the end; two at least, which the index vouches for."""
        tokens, length, most = self.tokens, 2, min(place, LONGEST)
        while length < most and tokens[place - 1 - length] == tokens[-1 - length]:
            length += 1
        return length


def _pair(first: int, second: int) -> int:
    return first << 32 | second
