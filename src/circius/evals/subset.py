"""Which items of a benchmark are taken when not all are: always the same for the same seed."""

import random
from collections.abc import Sequence
from itertools import chain, zip_longest

from circius.base.errors import InvalidInputError
from circius.evals.item import Item


def drawn(items: Sequence[Item], limit: int | None, *, seed: int, name: str, is_balanced: bool = False) -> list[Item]:
    """`limit` of the items at random, or all, in their own order. A larger limit takes what a smaller one took too.

    is_balanced: take as many of each part, as far as there are.

    >>> items = [Item(id=str(n), doc=n) for n in range(9)]
    >>> [item.id for item in drawn(items, 3, seed=0, name="piqa")]
    ['3', '5', '7']

    Raises:
        InvalidInputError: a limit of less than one item.
    """
    if limit is not None and limit < 1:
        raise InvalidInputError(f"a subset has 1 item or more, got a limit of {limit}")
    if limit is None or limit >= len(items):
        return list(items)
    order = list(range(len(items)))
    random.Random(f"{seed}/{name}").shuffle(order)
    if is_balanced:
        parts: dict[str, list[int]] = {}
        for place in order:
            parts.setdefault(items[place].part, []).append(place)
        order = [place for place in chain.from_iterable(zip_longest(*parts.values())) if place is not None]
    return [items[place] for place in sorted(order[:limit])]
