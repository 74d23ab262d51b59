"""How large a Llama 2 would have to be for the same score: the paper's Figure 5, with its method spelled out."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from types import MappingProxyType
from typing import Literal

from circius.base.errors import InvalidInputError

OWN_SIZE_B = 7.0
"""What the paper's ratios divide by, in billions of parameters: 23 / 7 = 3.3."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Scores of one family of models by size, measured by one protocol.

    Attributes:
        name: how the curve is called.
        protocol: whose pipeline measured it; scores of another one do not belong on it.
        source, mark: where the numbers are from, and how that was checked.
        points: benchmark or category to (billions of parameters, score in per cent), by size.
    """

    name: str
    protocol: str
    source: str
    mark: str
    points: Mapping[str, tuple[tuple[float, float], ...]]


@dataclass(frozen=True, kw_only=True)
class Equivalent:
    """The size at which a curve has a score.

    Attributes:
        kind: "inside" the curve, "above" its largest model, "below" its smallest, or "undefined" where the curve falls
            with size, so that no size belongs to a score.
        size_b: billions of parameters: inside the size itself, above and below the end that it lies beyond.
        ratio: that, divided by the size of the model that was measured.
    """

    kind: Literal["inside", "above", "below", "undefined"]
    size_b: float | None
    ratio: float | None

    def __str__(self) -> str:
        if self.size_b is None or self.ratio is None:
            return "undefined: the curve is not monotone"
        sign = {"above": "> ", "below": "< "}.get(self.kind, "")
        return f"{sign}{self.size_b:.1f}B ({sign}{self.ratio:.1f}×)"


def equivalent_size(
    score: float, points: Sequence[tuple[float, float]], *, own_size_b: float = OWN_SIZE_B
) -> Equivalent:
    """The size at which a curve reaches `score`: straight lines between its points, over the logarithm of the size.

    points: (billions of parameters, score), in order of size; the score in the units of `score`.

    >>> str(equivalent_size(60.1, [(7, 44.4), (13, 55.6), (70, 68.9)]))
    '23.0B (3.3×)'

    Raises:
        InvalidInputError: fewer than two points, sizes that are not above 0 or not in order, or no finite numbers.
    """
    _check(score, points, own_size_b)
    if any(later < earlier for (_, earlier), (_, later) in pairwise(points)):
        return Equivalent(kind="undefined", size_b=None, ratio=None)
    (smallest, lowest), (largest, highest) = points[0], points[-1]
    if score < lowest:
        return Equivalent(kind="below", size_b=smallest, ratio=smallest / own_size_b)
    if score > highest:
        return Equivalent(kind="above", size_b=largest, ratio=largest / own_size_b)
    size_b = _interpolated(score, points)
    return Equivalent(kind="inside", size_b=size_b, ratio=size_b / own_size_b)


def equivalent_interval(
    low: float, high: float, points: Sequence[tuple[float, float]], *, own_size_b: float = OWN_SIZE_B
) -> tuple[Equivalent, Equivalent]:
    """The sizes for the two ends of a score's interval. The curve's own uncertainty, which nobody published, is not in.

    A curve never falls where it is defined, so an interval of scores is one of sizes.
    """
    return equivalent_size(low, points, own_size_b=own_size_b), equivalent_size(high, points, own_size_b=own_size_b)


def curves() -> Mapping[str, Curve]:
    """The curves that circius ships, by name."""
    stored = json.loads(files(__package__).joinpath("curves.json").read_text(encoding="utf-8"))
    return MappingProxyType(
        {
            entry["name"]: Curve(
                name=entry["name"],
                protocol=entry["protocol"],
                source=entry["source"],
                mark=entry["mark"],
                points=MappingProxyType(
                    {name: tuple((float(b), float(score)) for b, score in row) for name, row in entry["points"].items()}
                ),
            )
            for entry in stored["curves"]
        }
    )


def _interpolated(score: float, points: Sequence[tuple[float, float]]) -> float:
    for (small, low), (large, high) in pairwise(points):
        if low <= score <= high:
            share = 0.0 if high == low else (score - low) / (high - low)
            return math.exp(math.log(small) + share * (math.log(large) - math.log(small)))
    raise AssertionError("a score between the ends of a monotone curve lies on it")


def _check(score: float, points: Sequence[tuple[float, float]], own_size_b: float) -> None:
    if len(points) < 2:
        raise InvalidInputError(f"a curve needs at least two points, got {len(points)}")
    sizes = [size for size, _ in points]
    if sizes[0] <= 0 or any(later <= earlier for earlier, later in pairwise(sizes)):
        raise InvalidInputError(f"the sizes of a curve must be above 0 and in order, got {sizes}")
    if not all(map(math.isfinite, (score, own_size_b, *sizes, *(height for _, height in points)))) or own_size_b <= 0:
        raise InvalidInputError(f"scores must be finite and the own size above 0, got {score} and {own_size_b}")
